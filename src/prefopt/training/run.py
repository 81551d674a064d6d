"""A whole run: data, model, reference, checks, loop, and everything that is left in its folder."""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefopt import methods
from prefopt.comparisons import collate
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.models.identity import fingerprint
from prefopt.models.loading import (
    LoadedModel,
    LoraSettings,
    load_model,
    load_tokenizer,
    trainable_parameters,
)
from prefopt.objectives import registry
from prefopt.objectives.base import Objective
from prefopt.references import Reference
from prefopt.training import checkpoint, memory
from prefopt.training.batches import Scorer
from prefopt.training.console import Console
from prefopt.training.data import PreparedData, prepare, world_of
from prefopt.training.loop import Loop, StopRun
from prefopt.training.record import Record, first_pair, versions
from prefopt.training.samples import Sampler
from prefopt.training.schedule import Schedule

Prepare = Callable[[Any, torch.nn.Module, torch.optim.Optimizer], tuple[torch.nn.Module, Any]]
START_TOLERANCE = 1e-3  # nats a sequence; covers float32 sums of different batch shapes


@dataclass(frozen=True)
class RunOutcome:
    """What a run leaves behind.

    Attributes:
        output_dir: the run's folder.
        metrics: last training and evaluation metrics, start values as `start_*`.
        history: every line of metrics.jsonl.
    """

    output_dir: Path
    metrics: dict[str, float]
    history: list[dict[str, Any]]


def run(
    config: TrainConfig,
    hyper: Mapping[str, Any],
    reward: Callable[[str, str], float] | None = None,
    prepare_model: Prepare | None = None,
) -> RunOutcome:
    """Train as configured.

    Args:
        config: resolved configuration.
        hyper: the objective's hyper-parameters.
        reward: exact or judged reward of (prompt, completion), for samples; a world's verifier by default.
        prepare_model: wraps model and optimizer for several devices; Accelerate's `prepare` by default.

    Raises:
        ConfigError, ValueError, OSError: bad input, before any expensive work.
        StopRun: training cannot go on; the folder keeps everything up to there.
    """
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    objective = build_objective(config, hyper)
    folder = Path(
        config.output_dir.format(method=config.method.replace("+", "-"), seed=config.seed)
    ).expanduser()
    resume_from = find_resume(config, folder)
    bf16 = (
        config.bf16
        if config.bf16 is not None
        else torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        log_with=config.report_to or None,
        project_dir=str(folder),
        dataloader_config=DataLoaderConfiguration(),
    )
    main = accelerator.is_main_process
    console = Console(main)
    torch.manual_seed(config.seed)

    model_source = model_folder(config.model, main, accelerator)
    tokenizer = load_tokenizer(model_source)
    likelihood = TokenLikelihood(tokenizer, config.max_length)
    data = prepare(config, objective, likelihood)
    record = Record(folder, config, hyper, main, resuming=resume_from is not None)
    record.data(data.report, data.dropped)
    record.json("first_pair", first_pair(data.train[0], tokenizer))
    console.data(data.report, len(data.train), len(data.held_out))
    console.first_pair(record.read("first_pair"))

    lora = (
        LoraSettings(
            r=config.lora_r,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            target_modules=config.lora_target_modules,
        )
        if config.use_peft
        else None
    )
    # bf16 weights round away updates at usual learning rates, so full fine-tuning keeps float32 weights
    dtype = config.dtype if config.dtype != "auto" or lora is not None else "float32"
    policy = load_model(
        model_source,
        dtype=dtype,
        lora=lora,
        load_in_4bit=config.load_in_4bit,
        attn_implementation=config.attn_implementation,
    )
    if not trainable_parameters(policy.model):
        raise ConfigError(f"nothing is trainable in {config.model}: every parameter is frozen")
    if config.gradient_checkpointing:
        model: Any = policy.model
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if not config.load_in_4bit:
        policy.model.to(accelerator.device)

    reference = make_reference(config, objective, policy, likelihood, model_source, dtype, accelerator, bf16)
    schedule = Schedule(
        n_examples=len(data.train),
        per_device=config.per_device_train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        processes=accelerator.num_processes,
        epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        seed=config.seed,
    )
    rows = 2 * config.per_device_train_batch_size
    longest = max(len(item.ids) for e in data.train for item in e.items)
    forecast = memory.forecast(
        policy.model,
        optim=config.optim,
        rows=rows,
        length=longest,
        reference_resident=reference.kind == "live",
        gradient_checkpointing=config.gradient_checkpointing,
        autocast_bf16=bool(bf16),
    )
    text, fits = memory.sentence(forecast, memory.available(accelerator.device))
    record.check("memory", "pass" if fits else "warn", text)

    scored = reference.prepare(
        [item for e in (*data.train, *data.held_out) for item in (*e.items, *e.aside)],
        batch_tokens=16384,
        share=(accelerator.process_index, accelerator.num_processes),
        wait=accelerator.wait_for_everyone,
        progress=console.track if main else None,
    )
    if reference.kind == "cached":
        record.check("reference cache", "note", f"{scored} items scored now, the rest came from the cache")
    start_print = reference.fingerprint or fingerprint(policy.model)

    optimizer: Any = make_optimizer(config, policy)
    scheduler = make_scheduler(config, optimizer, schedule.steps)
    if prepare_model is None:
        wrapped, optimizer = accelerator.prepare(policy.model, optimizer)
    else:
        wrapped, optimizer = prepare_model(accelerator, policy.model, optimizer)
    loop = Loop(
        config=config,
        accelerator=accelerator,
        model=wrapped,
        optimizer=optimizer,
        scheduler=scheduler,
        objective=objective,
        scorer=Scorer(likelihood, reference, objective, accelerator.device),
        train=data.train,
        held_out=data.held_out,
        schedule=schedule,
        state={k: v.to(accelerator.device) for k, v in objective.initial_state().items()},
    )
    method = methods.find(config.method)
    record.manifest(
        method=config.method,
        title=method.title if method else config.method,
        summary=method.summary if method else "",
        paper=None
        if method is None
        else {
            "title": method.paper.title,
            "authors": method.paper.authors,
            "arxiv": method.paper.arxiv,
            "year": method.paper.year,
            "bibtex": method.paper.bibtex,
        },
        model={
            "source": config.model,
            "class": type(policy.model).__name__,
            "parameters": sum(p.numel() for p in policy.model.parameters()),
            "trainable": sum(p.numel() for p in trainable_parameters(policy.model)),
            "dtype": str(next(policy.model.parameters()).dtype).removeprefix("torch."),
            "fingerprint": start_print,
        },
        data={
            "source": config.data,
            "fingerprint": data.fingerprint,
            "examples": len(data.train),
            "eval_examples": len(data.held_out),
        },
        machine={
            "device": str(accelerator.device),
            "processes": accelerator.num_processes,
            "cores": os.cpu_count(),
            "memory_gb": round(memory.available(torch.device("cpu")) / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
        },
        versions=versions(),
        seed=config.seed,
        effective_batch_size=schedule.step_size,
        steps=schedule.steps,
        epochs=schedule.steps / schedule.steps_per_epoch,
        memory_forecast=forecast,
        command=" ".join(["prefopt", *sys.argv[1:]]) if sys.argv else "",
    )
    sampler = Sampler(config, likelihood, reference, data.prompts, reward or data.verify, record)
    try:
        loop_and_log(config, loop, policy, data, record, console, sampler, resume_from)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, KeyboardInterrupt):
            reason = "interrupted; go on with resume=true"
        record.manifest(status=f"stopped: {reason}")
        record.pages()
        raise
    return RunOutcome(folder, record.last_metrics(), record.history)


def loop_and_log(
    config: TrainConfig,
    loop: Loop,
    policy: LoadedModel,
    data: PreparedData,
    record: Record,
    console: Console,
    sampler: Sampler,
    resume_from: Path | None,
) -> None:
    """Start checks, training with logs, evaluations and checkpoints, and the finished folder."""
    accelerator, schedule, folder = loop.accelerator, loop.schedule, record.folder
    identity: dict[str, Any] = {
        "data": data.fingerprint,
        "steps": schedule.steps,
        "step_size": schedule.step_size,
        "seed": config.seed,
    }
    # what a resumed run must share with the one it continues, besides its data and order
    identity["objective"] = repr(loop.objective)
    for key in (
        "learning_rate",
        "lr_scheduler_type",
        "optim",
        "warmup_steps",
        "warmup_ratio",
        "max_grad_norm",
    ):
        identity[key] = getattr(config, key)
    judged = data.held_out or data.train[: 4 * config.per_device_eval_batch_size]
    if resume_from is None:
        start_checks(config, loop, record)
        seconds = loop.rehearse_longest()
        record.check(
            "longest batch first", "pass", f"forward and backward of the longest batch took {seconds:.2f} s"
        )
        evaluation, margins = loop.evaluate(judged)
        record.margins("before", margins, "held-out" if data.held_out else "training")
        evaluation |= sampler.take(policy.model, 0, "before", accelerator)
        record.metrics(0, 0.0, "eval", {f"eval_{k}": v for k, v in evaluation.items()})
        console.evaluation(0, evaluation)
    else:
        state, objective_state = checkpoint.load(resume_from, loop.model, loop.optimizer)
        if state["identity"] != identity:
            changed = [k for k in identity if state["identity"].get(k) != identity[k]]
            raise ConfigError(
                f"{resume_from} belongs to a run with other {', '.join(changed)}: resume with the configuration in "
                f"{folder / 'config.yaml'}, or start over with overwrite=true"
            )
        loop.step, loop.tokens = state["step"], state["tokens"]
        loop.state = {k: v.to(accelerator.device) for k, v in objective_state.items()}
        # its functions of the step are rebuilt from the configuration, never stored
        functions = [None] * len(loop.scheduler.lr_lambdas)
        loop.scheduler.load_state_dict(state["scheduler"] | {"lr_lambdas": functions})
        for group, rate in zip(loop.optimizer.param_groups, state["learning_rates"], strict=True):
            group["lr"] = rate
        record.rewind(loop.step)
        console.say(f"resumed after step {loop.step} from {resume_from}")
    loop.scorer.reference.policy_moved()
    eval_steps = config.eval_steps or max(1, math.ceil(schedule.steps / 10))
    save_steps = config.save_steps or schedule.steps_per_epoch
    began, began_step = time.perf_counter(), loop.step

    def after_step(loop: Loop) -> None:
        done = loop.step == schedule.steps
        epoch = loop.step / schedule.steps_per_epoch
        if loop.step % config.logging_steps == 0 or done or loop.step == 1:
            loop.watch()
            line = loop.train_metrics() | {
                "grad_norm": loop.last_grad_norm,
                "learning_rate": loop.scheduler.get_last_lr()[0],
                "num_tokens": float(
                    loop.accelerator.reduce(
                        torch.tensor(float(loop.tokens), device=accelerator.device), "sum"
                    )
                ),
            }
            record.metrics(loop.step, epoch, "train", line)
            accelerator.log(line, step=loop.step)
            console.training(
                loop.step, schedule.steps, line, (time.perf_counter() - began) / (loop.step - began_step)
            )
        else:
            console.tick(loop.step)
        if (loop.step % eval_steps == 0 or done) and (data.held_out or done):
            evaluation, margins = loop.evaluate(judged)
            label = "after" if done else f"step {loop.step}"
            evaluation |= sampler.take(policy.model, loop.step, label, accelerator)
            if done:
                record.margins("after", margins, "held-out" if data.held_out else "training")
            prefixed = {f"eval_{k}": v for k, v in evaluation.items()}
            record.metrics(loop.step, epoch, "eval", prefixed)
            accelerator.log(prefixed, step=loop.step)
            console.evaluation(loop.step, evaluation)
        if config.save_checkpoints and (loop.step % save_steps == 0 or done):
            loop.watch()
            checkpoint.save(
                folder / "checkpoints",
                loop.step,
                loop.model,
                loop.optimizer,
                loop.state,
                {
                    "tokens": loop.tokens,
                    "scheduler": {k: v for k, v in loop.scheduler.state_dict().items() if k != "lr_lambdas"},
                    "learning_rates": [g["lr"] for g in loop.optimizer.param_groups],
                    "identity": identity,
                    "reference": loop.scorer.reference.fingerprint,
                },
                main=accelerator.is_main_process,
                keep=config.save_total_limit,
            )

    if config.report_to:
        accelerator.init_trackers(
            config.run_name or "prefopt", config=config.model_dump(mode="json", exclude={"report_to"})
        )
    with console.bar(schedule.steps, loop.step):
        loop.fit(after_step)
    save_model(folder / "model", policy, loop, accelerator)
    record.manifest(
        status="finished",
        duration_s=round(time.perf_counter() - began, 2),
        peak_memory_bytes=memory.peak(accelerator.device),
    )
    record.pages()
    console.finished(folder, record.last_metrics())
    accelerator.wait_for_everyone()
    accelerator.end_training()  # last: it also takes down the process group, which saving a sharded model needs


def build_objective(config: TrainConfig, hyper: Mapping[str, Any]) -> Objective:
    """The objective of a configuration; hyper-parameter values are checked here."""
    try:
        if config.loss_weights is not None:
            return registry.get(config.method.split("+"), weights=config.loss_weights, **hyper)
        return registry.get(config.method, **hyper)
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"{config.method}: {error.args[0] if error.args else error}") from error


def find_resume(config: TrainConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from; refuses to mix a new run into an old folder."""
    if isinstance(config.resume, str) and config.resume not in ("true", "false"):
        path = Path(config.resume).expanduser()
        checkpoint.read_state(path)
        return path
    if config.resume is True or config.resume == "true":
        found = checkpoint.newest(folder / "checkpoints")
        if found is not None:
            return found
        if not (folder / "config.yaml").exists():
            raise ConfigError(
                f"there is no run to resume in {folder}: leave out resume, or give its output_dir"
            )
    if (folder / "config.yaml").exists() and not (config.overwrite or config.resume):
        raise ConfigError(
            f"{folder} already holds a run. Give another output_dir, go on with resume=true, or replace it with "
            "overwrite=true"
        )
    return None


def model_folder(source: str, main: bool, accelerator: Any) -> str:
    """A model source with worlds replaced by the folder of their pretrained model."""
    world = world_of(source)
    if world is None:
        return str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    with accelerator.main_process_first():
        return str(world.model_dir(progress=main))


def make_reference(
    config: TrainConfig,
    objective: Objective,
    policy: LoadedModel,
    likelihood: TokenLikelihood,
    model_source: str,
    dtype: str,
    accelerator: Any,
    bf16: bool,
) -> Reference:
    """The reference that the configuration asks for."""
    kind: Any = config.reference
    if not objective.needs_reference:
        if kind not in ("auto", "none"):
            raise ConfigError(f"{config.method} uses no reference: leave out reference={kind}")
        kind = "none"
    elif kind == "none":
        raise ConfigError(f"{config.method} needs a reference: use reference=cached or live")
    elif kind == "auto":
        kind = "cached"
    other = config.reference_model
    source = model_source if other is None else model_folder(other, accelerator.is_main_process, accelerator)

    def load() -> torch.nn.Module:
        return load_model(
            source, dtype=dtype, attn_implementation=config.attn_implementation, trainable=False
        ).model

    reference = Reference(
        kind,
        policy=policy,
        likelihood=likelihood,
        load=load,
        same_as_policy=other is None,
        device=accelerator.device,
        precision="bf16" if bf16 else "no",
    )
    if other is not None:
        if kind == "adapter_off":
            raise ConfigError("reference=adapter_off and reference_model exclude each other")
        reference.use_other_model()
    return reference


def make_optimizer(config: TrainConfig, policy: LoadedModel) -> torch.optim.Optimizer:
    """torch's optimizer of that name; biases and norms are not decayed."""
    decayed = [p for p in trainable_parameters(policy.model) if p.dim() > 1]
    plain = [p for p in trainable_parameters(policy.model) if p.dim() <= 1]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if params
    ]
    match config.optim:
        case "adamw":
            betas = (config.adam_beta1, config.adam_beta2)
            return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=config.learning_rate, eps=config.adam_epsilon)
        case "sgd":
            return torch.optim.SGD(groups, lr=config.learning_rate)


def make_scheduler(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Learning-rate schedule of transformers, by its name."""
    from transformers import get_scheduler

    warmup = config.warmup_steps or math.ceil(config.warmup_ratio * steps)
    name = (
        "constant_with_warmup"
        if config.lr_scheduler_type == "constant" and warmup
        else config.lr_scheduler_type
    )
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)


def start_checks(config: TrainConfig, loop: Loop, record: Record) -> None:
    """Policy equals reference: zero margins, and the loss that goes with them."""
    batch = collate(loop.train[: config.per_device_train_batch_size])
    with torch.no_grad(), loop.accelerator.autocast():
        loop.model.eval()
        sides, edges, _ = loop.scorer.sides(loop.model, batch)
    if not loop.objective.needs_reference:
        record.check(
            "start value", "note", "the objective uses no reference: there is no zero margin to start from"
        )
        return
    if config.reference_model is not None:
        record.check(
            "start value", "note", "another reference model is in use: margins need not start at zero"
        )
        return
    worst = float(torch.cat([sides.rho_w, sides.rho_l]).abs().max())
    outcome_E3 = edges.outcome_E3.to(sides.rho_w.dtype)
    state = loop.objective.next_state(loop.state, loop.objective.statistics(sides, outcome_E3))
    loss = float(loop.objective.losses(sides, outcome_E3, state).mean())
    record.manifest(zero_margin_loss=loss)
    tolerance = START_TOLERANCE if loop.accelerator.mixed_precision == "no" else 1.0
    if worst <= tolerance:
        record.check(
            "start value",
            "pass",
            f"policy equals reference (largest log-ratio {worst:.1e} nats); loss {loss:.4f}",
        )
    else:
        record.check(
            "start value",
            "warn" if loop.accelerator.mixed_precision != "no" else "fail",
            f"policy and reference differ by {worst:.3g} nats before any step: dropout, dtype or a damaged cache",
        )
        if loop.accelerator.mixed_precision == "no":
            raise StopRun(
                f"policy and reference differ by {worst:.3g} nats before any step, so the run would start from a wrong "
                "place. Check that the model is deterministic (no dropout) and the same in both; try reference=live"
            )


def save_model(folder: Path, policy: LoadedModel, loop: Loop, accelerator: Any) -> None:
    """Write the trained model (or adapter) with its tokenizer, whole or not at all."""
    sharded = any(hasattr(p, "full_tensor") for p in policy.model.parameters())
    state = {k: checkpoint.whole(v) for k, v in policy.model.state_dict().items()} if sharded else None
    if not accelerator.is_main_process:
        return
    partial = folder.with_name(".model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model: Any = policy.model
    options: dict[str, Any] = {} if state is None else {"state_dict": state}
    if policy.adapter:
        options["selected_adapters"] = [policy.adapter]
    model.save_pretrained(partial, **options)
    loop.scorer.likelihood.tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
