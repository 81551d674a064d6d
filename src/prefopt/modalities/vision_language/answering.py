"""A vision-language model that answers the requests of a benchmark, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from prefopt.generation import base
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.generating import pictured_generator, request_about
from prefopt.modalities.vision_language.requests import Answerer, Request


def load_answerer(
    model: str, *, max_new_tokens: int, temperature: float, num_beams: int, seed: int, batch_size: int
) -> Answerer:
    """A model, ready to answer, on the GPU where there is one.

    An answer follows from settings, prompt and images alone, whatever else is asked with it, up to rounding.

    Args:
        model: folder or hub id of a vision-language model or of an adapter on one, or a world.
        max_new_tokens: answers are cut there.
        temperature: divides the logits; 0 takes the likeliest token.
        num_beams: of a beam search, at temperature 0; 1 for none.
        seed: of draws.
        batch_size: answers at once.

    Raises:
        FileNotFoundError, ValueError, OSError: no model or processor there, or settings that contradict each other.

    Example:
        >>> answers = load_answerer(                                                    # doctest: +SKIP
        ...     "runs/mine/model", max_new_tokens=64, temperature=0, num_beams=1, seed=0, batch_size=8
        ... )
        >>> answers([Request([ImageRef(Path("cat.png"))], "Is there a cat?")])          # doctest: +SKIP
        ['Yes.']
    """
    if num_beams > 1 and temperature > 0:  # before the model is loaded
        raise ValueError(
            f"num_beams={num_beams} finds the likeliest answers, and temperature={temperature:g} draws them: set "
            "temperature=0, or num_beams=1"
        )
    settings = base.Settings(max_new_tokens, temperature, seed=seed)
    generator = pictured_generator(model, batch_size, num_beams)
    chat = bool(generator.tokenizer.chat_template)

    def answers(requests: Sequence[Request]) -> list[str]:
        if num_beams > 1:
            check_beams(generator.model, requests)
        asked = [as_asked(request, chat) for request in requests]
        distinct = list({request.id: request for request in asked}.values())
        found = {r.id: r.text.strip() for batch in generator.generate(distinct, settings) for r in batch}
        return [found[request.id] for request in asked]

    return answers


def as_asked(request: Request, chat: bool) -> base.Request:
    """A request as generators take it, named by its content.

    Args:
        request: videos, images and words.
        chat: whether the model has a chat template; if not, the words are continued.
    """
    prompt: base.Prompt = [{"role": "user", "content": request.prompt}] if chat else request.prompt
    name = blake2b(request.prompt.encode(), digest_size=16)
    for digest in (*(video.digest for video in request.videos), *(image.digest for image in request.images)):
        name.update(digest.encode())
    return request_about(name.hexdigest(), prompt, (*request.videos, *map(Picture, request.images)))


def check_beams(model: Any, requests: Sequence[Request]) -> None:
    """Refuse what `generate` of transformers would get wrong without a word.

    Where it repeats each picture for the beams of its prompt, one by one, several of one prompt change places. Classes that
    take pictures encoded beforehand, or that repeat them by themselves, keep the order.

    Raises:
        ValueError: several images or a video in one prompt, and a model of another class.
    """
    from inspect import signature

    from transformers import GenerationMixin

    whole = model.get_base_model() if hasattr(model, "peft_config") else model
    if (
        "mm_encoder_outputs" in signature(whole.forward).parameters
        or type(whole)._expand_inputs_for_generation is not GenerationMixin._expand_inputs_for_generation
    ):
        return
    if any(len(request.images) > 1 or request.videos for request in requests):  # a video is several
        raise ValueError(
            f"{type(whole).__name__} cannot search with beams for answers to several images, or to videos: set num_beams=1"
        )
