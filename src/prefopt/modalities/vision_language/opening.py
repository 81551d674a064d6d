"""A model's processor and the likelihood that goes with it, from a folder or hub id."""

from __future__ import annotations

from prefopt.config import ConfigError
from prefopt.likelihoods.tokens import TruncationMode
from prefopt.modalities.vision_language.images import Images
from prefopt.modalities.vision_language.likelihood import PicturedLikelihood
from prefopt.modalities.vision_language.processor import load_processor
from prefopt.models.positions import positions_of
from prefopt.models.sources import whole_model


def open_images(source: str) -> Images:
    """The processor of a model.

    Raises:
        FileNotFoundError, ValueError: there is none that could be used.
    """
    processor = load_processor(source)
    token = token_of(source, "image")
    if token is None:
        raise ValueError(
            f"the config.json of {source} names no image_token_id, so it is not known where the model puts images"
        )
    return Images(processor, token)


def token_of(source: str, kind: str) -> int | None:
    """Id of the token at whose places a model puts features of images, or of videos; None: its configuration names none."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(whole_model(source), trust_remote_code=False)
    names = (f"{kind}_token_id", f"{kind}_token_index")
    found = [value for name in names if (value := getattr(config, name, None)) is not None]
    return int(found[0]) if found else None


def check_truncation(truncation_mode: TruncationMode) -> None:
    """Raise ConfigError where pictures would be cut."""
    if truncation_mode == "keep_end":
        raise ConfigError(
            "truncation_mode=keep_end cuts the beginning of the prompt, where pictures and videos stand, and tokens of a picture "
            "cannot be cut: leave it out, and shorten the rows, the pictures or video_frames"
        )


def pictured_likelihood(images: Images, max_length: int | None, *sources: str) -> PicturedLikelihood:
    """A likelihood whose rows fit the positions of some models."""
    known = [n for source in sources if (n := positions_of(source)) is not None]
    return PicturedLikelihood(images, max_length, min(known, default=None), token_of(sources[0], "video"))
