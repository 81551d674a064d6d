"""One check of all keys: which are unknown, which mean nothing in this run, and why."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from prefopt import methods
from prefopt.config.applying import Kind, applying, traits_of, unmet
from prefopt.config.errors import ConfigError
from prefopt.config.foreign import FOREIGN, migration_hint
from prefopt.config.keys.base import Needs
from prefopt.config.keys.optimization import ADAMS, adams_settings
from prefopt.config.schema import ALIASES, FIELD_NAMES, TrainConfig

STAGES = {
    "gradient": "a single run with the loss of {method}",
    "oracle": "the second one alone",
}
"""What a run of one stage is."""
COMBINED = {
    "ld_alpha": Needs(("text",), "likelihoods by token", "and {model} is {noun}"),
    "use_weighting": Needs(("text",), "likelihoods by token", "and {model} is {noun}"),
    "rpo_alpha": Needs(("usual_scores",), "sums of losses", "and {method} has scores of its own"),
}
"""What losses are combined with by a key, and where (`prefopt.objectives.combining`)."""
BESIDE = {
    "reference_mixup_alpha": (
        "sync_reference",
        "for a reference that moves, which sync_reference=true makes it do",
    ),
    "reference_sync_steps": (
        "sync_reference",
        "for a reference that moves, which sync_reference=true makes it do",
    ),
    "extend": ("resume", "for a run that goes on, which resume=true asks for"),
    "early_stopping_threshold": (
        "early_stopping_patience",
        "for early stopping, which early_stopping_patience asks for",
    ),
    "gradient_checkpointing_kwargs": (
        "gradient_checkpointing",
        "for layers that are computed again, which gradient_checkpointing=true asks for",
    ),
    "hub_model_id": ("push_to_hub", "for a model that is uploaded, which push_to_hub=true asks for"),
    "hub_private_repo": ("push_to_hub", "for a model that is uploaded, which push_to_hub=true asks for"),
}
"""Keys that mean nothing unless another one is set, and the reason."""
OF_ONE_RUN = {
    "sync_reference": "for a single run, and {method} is several: between its rounds, train_reference says what the reference is",
    "save_dtype": "for a single run, and {method} is several: each would begin with the rounded weights of the one before",
    "extend": "for a single run, and {method} is several, whose number of rounds is part of what they are",
}
"""Keys that a method of several runs would use in each of them, where they would not mean what they say."""
NEAR = 0.7
"""How close a name must be to a key that exists, and so is spelt as it was meant."""


def check_keys(
    config: TrainConfig, kind: Kind, unknown: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> None:
    """Refuse all keys that this run cannot use, in one error.

    A key counts as given if it differs from its default and from the method's own.

    Args:
        config: of the run.
        kind: what its model is.
        unknown: keys that were given and are none of the schema or of the objective.
        given: hyper-parameters of the objective, those that it refuses among them.

    Raises:
        ConfigError: each wrong key with the reason, and with the nearest one that means something in this run.
    """
    there = traits_of(config.method, config.stage) | kind.traits
    usual = methods.defaults(config.method)
    foreign = {
        key: reason(config, kind, need)
        for key, field in TrainConfig.model_fields.items()
        if getattr(config, key) not in (field.default, usual.get(key, field.default))
        and (need := unmet(key, there)) is not None
    }
    foreign |= refused_terms(config.method, given or {})
    foreign |= {
        key: reason(config, kind, need)
        for key, need in COMBINED.items()
        if key in (given or {}) and key not in foreign and not {*need.traits} & there
    }
    set_to = {
        key for key in (*BESIDE, *OF_ONE_RUN) if getattr(config, key) != TrainConfig.model_fields[key].default
    }
    if "stages" in there and config.stage == "all":
        foreign |= {key: why.format(method=config.method) for key, why in OF_ONE_RUN.items() if key in set_to}
    foreign |= {
        key: why for key, (switch, why) in BESIDE.items() if key in set_to and not getattr(config, switch)
    }
    foreign |= {
        key: f"a setting of Adam's, which optim={config.optim} does not have; what it takes goes into optim_args"
        for key in ADAMS
        if key not in adams_settings(config.optim)
        and getattr(config, key) not in (TrainConfig.model_fields[key].default, usual.get(key))
    }
    if config.stage == "oracle" and "oracle" not in there and "stage" not in foreign:
        foreign["stage"] = f"stage=oracle belongs to compo, and {config.method} has no such stage"
    if unknown or foreign:
        usable = applying(config.method, kind.traits, config.stage)
        raise refusal(config.method, objective_keys(config.method, config.first), unknown, foreign, usable)


def refused_terms(method: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Keys that would be combined with a loss that has no place for them, each with the reason."""
    from prefopt.objectives import registry

    return {
        key: why for key in COMBINED if key in given and (why := registry.refused(method, key)) is not None
    }


def reason(config: TrainConfig, kind: Kind, need: Needs) -> str:
    """Why a key with this need means nothing in this run."""
    lacks = need.lacks
    if set(need.traits) & methods.traits(config.method):
        lacks = f"and stage={config.stage} is {STAGES[config.stage]}"
    noun = f"{'an' if kind.noun[0] in 'aeiou' else 'a'} {kind.noun} model"
    return f"for {need.words}, {lacks.format(method=config.method, model=config.model, noun=noun)}"


def objective_keys(method: str, first: object = None) -> tuple[str, ...]:
    """Hyper-parameters that a method takes; compo's first stage has a loss of its own.

    Raises:
        KeyError, ValueError: no such objective.
    """
    from prefopt.objectives import registry

    own = tuple(registry.hyperparameter_names(method))
    return own + tuple(registry.hyperparameter_names("simpo")) if first == "simpo" else own


def refusal(
    method: str,
    own: Collection[str],
    unknown: Sequence[str],
    foreign: Mapping[str, str],
    usable: Collection[str] = FIELD_NAMES,
) -> ConfigError:
    """The error for wrong keys.

    Args:
        method: of the run.
        own: hyper-parameters that it takes.
        unknown: keys that nobody knows.
        foreign: keys that mean nothing in this run, with the reason.
        usable: keys of the schema that do.
    """
    known = {*usable, *own, *(alias for alias, key in ALIASES.items() if key in {*usable, *own})}
    takes = f"{method} takes {', '.join(sorted({*own})) or 'no hyper-parameters'}; `prefopt methods NAME` lists every key"
    hint = migration_hint(unknown)
    if len(unknown) + len(foreign) == 1:
        for key in unknown:
            if key in FOREIGN:
                return ConfigError(f"{key} is no key here: {FOREIGN[key]}{'. ' if hint else ''}{hint}")
            return ConfigError(f"unknown key {key!r}{nearest(key, known)} ({takes})")
        for key, why in foreign.items():
            return ConfigError(
                f"{key}: {why}. Leave it out{'' if key in COMBINED else nearest(key, known, NEAR)}"
            )
    lines = [f"  {key}: {FOREIGN.get(key) or f'unknown{nearest(key, known)}'}" for key in unknown]
    lines += [
        f"  {key}: {why}{'' if key in COMBINED else nearest(key, known, NEAR)}"
        for key, why in foreign.items()
    ]
    end = [*([takes] if unknown else []), *([hint] if hint else [])]
    return ConfigError(
        "\n".join(
            [f"{len(lines)} keys mean nothing in this run. Leave them out, or correct them:", *lines, *end]
        )
    )


def nearest(name: str, known: Iterable[str], least: float = 0.6) -> str:
    """`; did you mean X?` for the closest other name, if it is at least so close, or an empty string."""
    close = difflib.get_close_matches(name, sorted({*known} - {name}), n=1, cutoff=least)
    return f"; did you mean {close[0]!r}?" if close else ""
