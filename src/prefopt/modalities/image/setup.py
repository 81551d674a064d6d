"""Images: text-to-image pipelines of diffusers, denoising errors and reverse steps, generated samples.

Which of three set-ups a run takes: images of a data set, images sampled while training, or a judge to train.
"""

from __future__ import annotations

from prefopt import methods
from prefopt.config import ONLINE_FIELDS, REWARD_FIELDS, TEXT_FIELDS, ConfigError, TrainConfig, refuse_keys
from prefopt.modalities.base import Context, Setup
from prefopt.objectives import registry


def set_up(context: Context) -> Setup:
    """Data first, then the pipeline; latents and prompt embeddings once, then the encoders leave memory.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    config = context.config
    method = methods.find(config.method)
    check_terms(config)
    check_precision(config)
    refuse_keys(config, TEXT_FIELDS, f"for text models, and {config.model} is an image model")
    if method is not None and method.rows == "prompts":
        from prefopt.modalities.image.online import set_up as set_up_online

        return set_up_online(context)
    if method is not None and method.likelihood == "reward":
        from prefopt.modalities.image.reward_model import set_up as set_up_reward

        return set_up_reward(context)
    refuse_keys(
        config, ONLINE_FIELDS, f"for methods that sample while training, which {config.method} does not"
    )
    refuse_keys(config, REWARD_FIELDS, f"for training reward models (lrm), which {config.method} does not")
    from prefopt.modalities.image.offline import set_up as set_up_offline

    return set_up_offline(context)


def check_terms(config: TrainConfig) -> None:
    """Raise ConfigError if a method, or a term of a sum, does not work on images from a data set."""
    names = [name for _, name in registry.parse(config.method)]
    for name in names:
        method = methods.find(name)
        if method is not None and method.modality == "text":
            raise ConfigError(
                f"{name} scores tokens, and {config.model} is an image model: see `prefopt methods` for those on images"
            )
        if method is not None and len(names) > 1 and (method.samples or method.likelihood):
            raise ConfigError(
                f"{name} has scores of its own and cannot be a term of a sum: run it alone; given {config.method}"
            )


def check_precision(config: TrainConfig) -> None:
    """Raise ConfigError for weights that no optimizer here can train."""
    if config.dtype == "float16" and not config.use_peft:
        raise ConfigError(
            "dtype=float16 is not possible when all weights are trained: small gradients and Adam's epsilon round to 0, "
            "and the network diverges. Leave dtype out (float32, whatever the files hold), or set use_peft=true"
        )
