"""`prefopt demo`: the whole way on the bundled text world, in a few minutes on two cores."""

from __future__ import annotations

from typing import Any

import click

# the same run as examples/ties.yaml (a test holds them together); embedded, so that an installed package has it
DEMO: dict[str, Any] = {
    "model": "world:text",
    "data": "world:text",
    "method": "dpo_rk",
    "beta": 0.3,
    "nu": 3.0,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "per_device_train_batch_size": 16,
    "num_train_epochs": 2,
    "sample_prompts": 64,
    "sample_max_new_tokens": 24,
}


@click.command()
@click.option(
    "--output", default="runs/demo", show_default=True, help="Folder of the run; replaced if it is a demo."
)
def command(output: str) -> None:
    """Pretrain a small language model on a generated task, align it with wins and ties, and write the report."""
    import time
    from pathlib import Path

    from prefopt.cli.train import run_or_explain
    from prefopt.config import resolve

    began = time.perf_counter()
    click.echo(
        "A small Llama learns a word task from careless demonstrations (once; about a minute), then from"
    )
    click.echo("comparisons of its own answers: 400 wins and 400 ties, scored by an exact verifier.\n")
    config, hyper = resolve(DEMO, {"output_dir": output, "overwrite": True})
    outcome: Any = run_or_explain(config, hyper)
    metrics = outcome.metrics
    click.echo(
        f"\nreward of its answers: {metrics['start_eval_reward']:.2f} -> {metrics['eval_reward']:.2f} (1 is perfect), "
        f"KL to the start {metrics['eval_kl']:.2f} nats, {time.perf_counter() - began:.0f} s"
    )
    click.echo(f"Open the report:  {(Path(output) / 'report.html').resolve()}")
