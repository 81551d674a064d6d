"""The reference of a run, as it was asked for: which kind, and whether it moves."""

from __future__ import annotations

from typing import Any

from prefopt.config import ConfigError, TrainConfig
from prefopt.modalities.base import Context, Setup
from prefopt.objectives.base import Objective
from prefopt.references import Reference, Sync

MOVES = (
    "the reference moves every {steps} steps: {alpha:g} of the policy is mixed into it. rewards, margins and losses are against the "
    "reference as it is at that step, kl is the distance to the model that the run began with, kl_to_reference that to the "
    "reference as it is"
)


def asked_reference(config: TrainConfig, objective: Objective) -> str:
    """The kind of reference that a run asks for, "auto" where its modality decides; before anything is read.

    Raises:
        ConfigError: the objective cannot use it.
    """
    kind, method = config.reference, config.method
    if not objective.needs_reference:
        if config.sync_reference:
            raise ConfigError(f"{method} uses no reference that could move: leave out sync_reference")
        if kind not in ("auto", "none"):
            raise ConfigError(f"{method} uses no reference: leave out reference={kind}")
        return "none"
    if kind == "none":
        raise ConfigError(f"{method} needs a reference: use reference=cached or live")
    if kind == "adapter_off" and config.reference_model is not None:
        raise ConfigError("reference=adapter_off and reference_model exclude each other")
    if not config.sync_reference:
        return kind
    if kind not in ("auto", "live"):
        why = {
            "cached": "scores on disk are those of a reference that stays",
            "adapter_off": "the policy without its adapters stays what it was",
        }[kind]
        raise ConfigError(
            f"sync_reference moves the reference, and reference={kind} cannot: {why}. Leave out reference, or set "
            "reference=live, which holds a copy of the model in memory"
        )
    if config.load_in_4bit or config.load_in_8bit:
        raise ConfigError(
            "sync_reference mixes the policy into the weights of the reference, and load_in_4bit or load_in_8bit quantizes them: leave out one "
            "of the two"
        )
    return "live"


def make_reference(context: Context, setup: Setup) -> Reference:
    """The reference that the configuration asks for."""
    config, objective = context.config, context.objective
    kind: Any = asked_reference(config, objective)
    if kind == "auto":
        kind = setup.reference_kind
    if "kl" in objective.needs and kind == "cached":
        raise ConfigError(
            f"{config.method} needs the reference's whole distribution at every token, which is not cached: set "
            "reference=live, or adapter_off with adapters"
        )
    other = config.reference_model is not None
    if setup.not_off is not None and kind == "adapter_off":
        raise ConfigError(
            f"reference=adapter_off is not possible: {setup.not_off}. Set reference=cached or live"
        )
    if setup.not_off is not None and kind != "none" and not other:
        told = f"the reference is loaded from the files of {config.model}: {setup.not_off}"
        context.record.check("reference", "note", told)
    return Reference(
        kind,
        policy=setup.policy,
        likelihood=setup.likelihood,
        load=setup.load_reference,
        same_as_policy=not other,
        device=context.accelerator.device,
        precision=context.precision,
        switches=setup.not_off is None,
        sync=Sync(config.reference_mixup_alpha, config.reference_sync_steps)
        if config.sync_reference
        else None,
    )


def follow(context: Context, reference: Reference, steps: int) -> None:
    """Have a reference that moves follow the prepared policy, and say what numbers are relative to.

    Args:
        context: of the run.
        reference: its own.
        steps: of the run.

    Raises:
        ConfigError: it would never move, or cannot.
    """
    sync = reference.sync
    if sync is None:
        return
    if steps <= sync.steps:
        raise ConfigError(
            f"the reference would not move while training: the run has {steps} steps, and reference_sync_steps={sync.steps}. "
            "Set it lower, or leave out sync_reference"
        )
    try:
        reference.follow()
    except ValueError as error:
        raise ConfigError(f"sync_reference is not possible here: {error}. Leave it out") from error
    told = MOVES.format(steps=sync.steps, alpha=sync.alpha)
    context.record.check("moving reference", "note", told)
    context.console.say(told)
