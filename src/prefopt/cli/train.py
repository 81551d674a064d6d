"""`prefopt train`: one run, from a YAML file or from a method's name."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from prefopt.modalities.commands import errors_told

HELP = """Train a model on comparisons.

WHAT is a YAML file, a method's name, or both (a method and a file for all else). Every configuration key and every hyper-parameter of the method can be given
as key=value or --key value; the command line wins over the file.

\b
    prefopt train examples/ties.yaml beta=0.3
    prefopt train dpo_d examples/ties.yaml
    prefopt train dpo --model DIR --data pairs.jsonl --learning_rate 1e-6
    accelerate launch --num_processes 2 -m prefopt train examples/ties.yaml

`prefopt methods` lists the methods; `prefopt methods NAME` explains one, with all keys.
"""


@click.command(help=HELP, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("what")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def command(what: str, overrides: tuple[str, ...]) -> None:
    """See HELP."""
    from prefopt.config import ConfigError, parse_overrides, read_yaml, resolve
    from prefopt.modalities.fit import kind_for

    try:
        layers = [read_yaml(Path(what)) if is_file(what) else {"method": what}]
        if overrides and is_file(overrides[0]) and not is_file(what):
            layers, overrides = [read_yaml(Path(overrides[0])), *layers], overrides[1:]
        config, hyper = resolve(*layers, parse_overrides(overrides), kind_of=kind_for)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    run_or_explain(config, hyper)


def is_file(what: str) -> bool:
    """Whether a YAML file is meant, and not a method or an override."""
    return "=" not in what and Path(what).suffix in (".yaml", ".yml")


def run_or_explain(config: object, hyper: dict[str, object]) -> object:
    """Run; errors that a user can act on become one plain line (PREFOPT_DEBUG=1 shows where)."""
    from prefopt.config import TrainConfig
    from prefopt.stages import train
    from prefopt.training.checkpoint import CheckpointError
    from prefopt.training.loop import StopRun

    assert isinstance(config, TrainConfig)
    # deprecations inside the libraries are for their callers, not for a user of this command
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|accelerate")
    with errors_told(StopRun, CheckpointError):
        return train(config, hyper)
