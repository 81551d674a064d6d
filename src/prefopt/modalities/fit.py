"""Whether a method can train a model: asked before a configuration is used, by whoever is about to use it."""

from __future__ import annotations

from prefopt import methods
from prefopt.config import ConfigError, TrainConfig
from prefopt.methods import Method
from prefopt.modalities import all_modalities, of_config
from prefopt.modalities.base import Modality
from prefopt.modalities.models import at_its_revision

WELL_KNOWN = ("dpo", "ipo", "kto", "diffusion_dpo")
"""Methods to name as examples."""


def fits(method: Method, kind: Modality) -> bool:
    """Whether models of that kind have what a method trains."""
    return method.modality in ("any", *kind.traits)


def least(trait: str) -> Modality:
    """The plainest modality with a trait: the one that is called so, or has the fewest others."""
    having = [kind for kind in all_modalities().values() if trait in kind.traits]
    return min(having, key=lambda kind: (kind.name != trait, len(kind.traits)))


def kind_for(config: TrainConfig) -> Modality:
    """The modality of what a configuration trains, if its method, or every term of a sum, can train it.

    Raises:
        ConfigError: a term is for models of another modality, or cannot be a term; there is no world of that name.
    """
    from prefopt.objectives import registry

    try:
        kind = of_config(at_its_revision(config))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    names = [name for _, name in registry.parse(config.method)]
    for name in names:
        term = methods.find(name)
        if term is None:
            continue
        if not fits(term, kind):
            if not any(fits(term, other) for other in all_modalities().values()):
                raise ConfigError(
                    f"{name} trains {term.modality} models, for which this installation has no modality; {config.model} is "
                    f"a {kind.noun} model"
                )
            wanted = least(term.modality)
            beside = "" if wanted.key is None else f" (or {wanted.key}=... beside this one)"
            known = [n for n in WELL_KNOWN if fits(methods.all_methods()[n], kind)][:3]
            raise ConfigError(
                f"{name} trains {wanted.noun} models, and {config.model} is not one: give {wanted.model} as model{beside}, "
                f"or take a "
                f"method for {kind.noun} models, such as {', '.join(known[:-1])} or {known[-1]}"
            )
        if len(names) > 1 and "usual_scores" not in term.traits:
            raise ConfigError(
                f"{name} has scores of its own and cannot be a term of a sum: run it alone; given {config.method}"
            )
    return kind
