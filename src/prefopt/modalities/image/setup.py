"""Images: text-to-image pipelines of diffusers, denoising errors and reverse steps, generated samples.

Which of three set-ups a run takes: images of a data set, images sampled while training, or a judge to train.
"""

from __future__ import annotations

from prefopt import methods
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.models import check_denoiser_settings


def set_up(context: Context) -> Setup:
    """Data first, then the pipeline; latents and prompt embeddings once, then the encoders leave memory.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    config = context.config
    method = methods.find(config.method)
    check_denoiser_settings(config)
    if method is not None and method.rows == "prompts":
        from prefopt.modalities.image.online import set_up as set_up_online

        return set_up_online(context)
    if method is not None and method.likelihood == "reward":
        from prefopt.modalities.image.reward_model import set_up as set_up_reward

        return set_up_reward(context)
    from prefopt.modalities.image.offline import set_up as set_up_offline

    return set_up_offline(context)
