"""A whole run: configuration, modality, reference, loop, and everything that is left in its folder."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prefopt import methods
from prefopt.callbacks import better_when_greater
from prefopt.config import ConfigError, TrainConfig, check_keys, run_folder
from prefopt.hub import check_push
from prefopt.likelihoods.base import Likelihood
from prefopt.likelihoods.clock import dated, today
from prefopt.locking import FolderLock
from prefopt.machine import memory
from prefopt.machine.allocator import kept_memory
from prefopt.modalities.base import Context, Modality, Setup
from prefopt.modalities.fit import kind_for
from prefopt.modalities.splits import PreparedData
from prefopt.models.identity import fingerprint
from prefopt.models.loading import trainable_parameters
from prefopt.objectives import registry
from prefopt.objectives.base import Objective
from prefopt.references import REFERENCE_BATCH
from prefopt.runs.console import Console
from prefopt.runs.record import Follower, Record, versions
from prefopt.runs.trackers import FOLDER, Trackers, trackers_meant
from prefopt.sources.feeds import Feed, OfflineFeed
from prefopt.sources.schedule import Schedule
from prefopt.training import checkpoint
from prefopt.training.batches import Scorer
from prefopt.training.best import check_read
from prefopt.training.course import Course
from prefopt.training.ending import noted_if_stopped
from prefopt.training.evaluate import EVALUATION
from prefopt.training.loop import Loop
from prefopt.training.metrics import TOKEN_METRICS
from prefopt.training.moments import Calendar
from prefopt.training.optimizer import make_optimizer
from prefopt.training.reference import asked_reference, follow, make_reference
from prefopt.training.schedule import make_learning_rate
from prefopt.training.updates import GradientRule

Prepare = Callable[[Any, torch.nn.Module, torch.optim.Optimizer], tuple[torch.nn.Module, Any]]


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
    reward: Callable[[Any, Any], float] | None = None,
    prepare_model: Prepare | None = None,
    follower: Follower | None = None,
) -> RunOutcome:
    """Train as configured.

    Args:
        config: resolved configuration.
        hyper: the objective's hyper-parameters.
        reward: exact or judged reward of (prompt, completion), for samples; a world's verifier by default.
        prepare_model: wraps model and optimizer for several devices; Accelerate's `prepare` by default.
        follower: told all that is recorded, as it is.

    Raises:
        ConfigError, ValueError, OSError: bad input, before any expensive work.
        StopRun: training cannot go on; the folder keeps everything up to there.
    """
    objective = build_objective(config, hyper)
    modality = kind_for(config)
    check_keys(config, modality, given=hyper)
    asked_reference(config, objective)
    config = config.model_copy(update={"report_to": trackers_meant(config.report_to)})
    check_read(config)
    Calendar.of(config, 100, 10)  # keys that do not go together are found before anything is read
    folder = run_folder(config)
    lock = FolderLock(folder)
    lock.look()  # by every process, before any of them can hold it: making the accelerator brings them together
    resume_from = find_resume(config, folder)
    accelerator, precision = make_accelerator(config, folder)
    main = accelerator.is_main_process
    check_push(config, ask=main)
    record = Record(
        folder, config, hyper, main, resuming=resume_from is not None, lock=lock, follower=follower
    )
    console = Console(main)
    trackers = Trackers(config, hyper, accelerator, folder, record.resuming, console.say)
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        stack.enter_context(noted_if_stopped(record))
        stack.callback(trackers.close, failed=True)  # one that has finished has closed them
        if main and folder.exists():
            lock.take()
            if find_resume(config, folder) != resume_from:
                raise ConfigError(f"another run has just written to {folder}: start again")
        stack.enter_context(dated(day_of(config, resume_from, accelerator)))
        context = Context(
            modality, config, objective, accelerator, precision, record, console, reward, trackers
        )
        setup = modality.part("setup").set_up(context)
        with kept_memory(accelerator.device.type):
            course = assemble(context, setup, prepare_model)
            course.run(resume_from)
    return RunOutcome(folder, record.last_metrics(), record.history)


def day_of(config: TrainConfig, resume_from: Path | None, accelerator: Any) -> datetime.date:
    """The date of a run, for chat templates that print one: as configured, as it began, or today, alike everywhere."""
    day = config.template_date
    if day is None and resume_from is not None:
        began = checkpoint.read_state(resume_from).get("template_date")
        day = None if began is None else datetime.date.fromisoformat(began)
    day = day or today()
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        (day,) = broadcast_object_list([day])
    return day


def make_accelerator(config: TrainConfig, folder: Path) -> tuple[Any, str]:
    """Accelerate's object, and the precision of its autocast: no, bf16 or fp16.

    Raises:
        ConfigError: a precision that is not to be had here, or two of them.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    check_parallelism(os.environ)
    AcceleratorState._reset_state()  # a second run in the same process may have another precision
    precision = autocast_precision(config)
    torch.manual_seed(config.seed)
    accelerator = Accelerator(
        mixed_precision=precision,
        log_with=list(config.report_to) or None,
        project_config=ProjectConfiguration(str(folder), str(folder / FOLDER)),
    )
    return accelerator, precision


def autocast_precision(config: TrainConfig) -> str:
    """As asked for, or bf16 where the GPU has it.

    Raises:
        ConfigError: fp16 without a GPU, beside bf16, or for weights that are float16 themselves.
    """
    if not config.fp16:
        bf16 = config.bf16
        if bf16 is None:
            bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return "bf16" if bf16 else "no"
    if config.bf16:
        raise ConfigError("bf16 and fp16 are both set: leave one out")
    if config.dtype == "float16":
        raise ConfigError(
            "fp16=true scales gradients of float32 weights, and dtype=float16 has none: leave out dtype"
        )
    if not torch.cuda.is_available():
        raise ConfigError("fp16=true needs a GPU; on a CPU leave it out, or set bf16=true")
    return "fp16"


def check_parallelism(environment: Mapping[str, str]) -> None:
    """Refuse launchers that split rows or layers over devices, where each process would be given examples of its own.

    Args:
        environment: as `accelerate launch` sets it.

    Raises:
        ConfigError: it does.
    """
    for name, what in (("CP", "sequences"), ("SP", "sequences"), ("TP", "layers")):
        size = environment.get(f"PARALLELISM_CONFIG_{name}_SIZE", "1")
        if size not in ("", "1"):
            raise ConfigError(
                f"the launcher splits {what} over {size} devices ({name.lower()}_size={size}), which is not done here: a row's tokens "
                "share prompts and pictures, and stay together. Leave it at 1; to fit long rows, use fewer frames, "
                "gradient_checkpointing=true, adapters, or FSDP"
            )


def assemble(context: Context, setup: Setup, prepare_model: Prepare | None) -> Course:
    """Reference, optimizer and loop around what the modality brought; scores what the reference cache lacks."""
    config, objective, accelerator = context.config, context.objective, context.accelerator
    record = context.record
    policy, data, likelihood = setup.policy, setup.data, setup.likelihood
    reference = make_reference(context, setup)
    feed: Feed
    if setup.feed is None:
        schedule = Schedule.of(config, len(data.train), accelerator.num_processes)
        feed = OfflineFeed(data.train, schedule, likelihood)
    else:
        feed = setup.feed(reference)
    forecast = setup.forecast(reference.kind == "live")
    text, fits = memory.sentence(forecast, memory.available(accelerator.device))
    record.check("memory", "pass" if fits else "warn", text)
    items = items_to_score(likelihood, data, epochs=math.ceil(feed.steps / feed.steps_per_epoch))
    began = time.perf_counter()
    scored = reference.prepare(
        items,
        batch_size=REFERENCE_BATCH,
        share=(accelerator.process_index, accelerator.num_processes),
        wait=accelerator.wait_for_everyone,
        progress=context.console.track if accelerator.is_main_process else None,
    )
    if reference.kind == "cached":
        per_example = sum(len(e.items) + len(e.aside) for e in data.train) / max(1, len(data.train))
        asked = round(feed.steps * feed.step_size * per_example)
        told = cache_account(scored, len(items), asked, time.perf_counter() - began)
        record.check("reference cache", "note", told)
        context.console.say(f"reference cache: {told}")
    start_print = reference.fingerprint or fingerprint(policy.model)

    optimizer: Any = make_optimizer(config, policy.model)
    greater = better_when_greater(config.metric_for_best_model, config.greater_is_better)
    learning_rate = make_learning_rate(config, optimizer, feed.steps, greater)
    wrapped: Any
    if prepare_model is None:
        wrapped, optimizer = accelerator.prepare(policy.model, optimizer)
    else:
        wrapped, optimizer = prepare_model(accelerator, policy.model, optimizer)
    loop = Loop(
        config=config,
        accelerator=accelerator,
        model=wrapped,
        optimizer=optimizer,
        learning_rate=learning_rate,
        objective=objective,
        scorer=Scorer(
            likelihood,
            reference,
            objective,
            accelerator.device,
            measures=frozenset(TOKEN_METRICS.values() if config.token_metrics else ()),
        ),
        feed=feed,
        state={k: v.to(accelerator.device) for k, v in objective.initial_state().items()},
        rule=setup.rule or GradientRule(),
        batch_tokens=setup.batch_tokens,
    )
    follow(context, reference, feed.steps)
    record.manifest(
        **describe(context, setup, start_print),
        effective_batch_size=feed.step_size,
        steps=feed.steps,
        epochs=feed.steps / feed.steps_per_epoch,
        memory_forecast=forecast,
    )
    probe = setup.probe(reference)
    return Course(config, loop, setup, record, context.console, probe, context.trackers, start_print)


def items_to_score(likelihood: Likelihood, data: PreparedData, epochs: int) -> list[Any]:
    """Every item that the reference will be asked for, with the noise of every epoch where noise is drawn."""
    drawn = [(e, EVALUATION) for e in (*data.train, *data.held_out)]
    drawn += [(e, epoch) for e in data.train if likelihood.renewed(e) for epoch in range(epochs)]
    scored = [likelihood.at(e, epoch) for e, epoch in drawn]
    return [item for e in scored for item in (*e.items, *e.aside)]


def cache_account(scored: int, items: int, asked: int, seconds: float) -> str:
    """What the reference cache cost and saves, in a sentence.

    Args:
        scored: items that this process scored.
        items: items that the run may ask for.
        asked: items that training steps will ask for, evaluations aside.
        seconds: that scoring took.
    """
    if not scored:
        return f"all {items:,} items were there already; training asks {asked:,} times"
    saved = seconds / scored * asked - seconds
    gain = f", which saves about {saved:.1f} s" if saved > 0 else ""
    return f"{scored:,} of {items:,} items scored in {seconds:.1f} s; training asks {asked:,} times{gain}"


def describe(context: Context, setup: Setup, start_print: str) -> dict[str, Any]:
    """The manifest's account of method, model, data and machine."""
    config, accelerator, model = context.config, context.accelerator, setup.policy.model
    return {
        **describe_method(config, context.modality),
        "model": {
            "source": config.model,
            "class": type(model).__name__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trainable": sum(p.numel() for p in trainable_parameters(model)),
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
            "fingerprint": start_print,
        },
        "data": {
            "source": config.data,
            "fingerprint": setup.data.fingerprint,
            "examples": len(setup.data.train),
            "eval_examples": 0 if setup.data.not_held_out else len(setup.data.held_out),
            "not_held_out": setup.data.not_held_out,
        },
        "machine": {
            "device": str(accelerator.device),
            "processes": accelerator.num_processes,
            "cores": os.cpu_count(),
            "memory_gb": round(memory.available(torch.device("cpu")) / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
        },
        "versions": versions(),
    }


def describe_method(config: TrainConfig, modality: Modality) -> dict[str, Any]:
    """The manifest's account of what was asked for."""
    method = methods.find(config.method)
    return {
        "method": config.method,
        "modality": modality.name,
        "title": method.title if method else config.method,
        "summary": method.summary if method else "",
        "paper": None if method is None else {**asdict(method.paper), "bibtex": method.paper.bibtex},
        "seed": config.seed,
        "command": " ".join(["prefopt", *sys.argv[1:]]) if sys.argv else "",
    }


def build_objective(config: TrainConfig, hyper: Mapping[str, Any]) -> Objective:
    """The objective of a configuration; hyper-parameter values are checked here."""
    try:
        if config.loss_weights is not None:
            objective = registry.get(config.method.split("+"), weights=config.loss_weights, **hyper)
        else:
            objective = registry.get(config.method, **hyper)
        objective.check_given()
        return objective
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
        if config.extend:
            raise ConfigError(
                f"{folder} has no checkpoint to go on from: leave out extend, and the run starts over"
            )
    if (folder / "config.yaml").exists() and not (config.overwrite or config.resume):
        raise ConfigError(
            f"{folder} already holds a run. Give another output_dir, go on with resume=true, or replace it with "
            "overwrite=true"
        )
    return None
