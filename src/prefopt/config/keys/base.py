"""What keys ask of a run before they mean anything, and the class that every group of keys derives from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel


@dataclass(frozen=True)
class Needs:
    """What a key asks of a run.

    Attributes:
        traits: of the model's modality or of the method (`Modality.traits`, `Method.traits`); one of these is enough.
        words: what has them, so that "for {words}" says where the key applies.
        lacks: the rest of that sentence for a run without them; {method}, {model} and {noun}, what the model is, are
            filled in.

    Example:
        >>> Needs(("guided",), "guided targets", "which {method} has none of").words
        'guided targets'
    """

    traits: tuple[str, ...]
    words: str
    lacks: str = "and {model} is {noun}"


class Keys(BaseModel):
    """A group of keys, a part of the one flat schema `TrainConfig`.

    Its `where` says where all of them apply: a run must have every need in it. A key that asks for more than its group
    says so beside its type: `grad_scale: Annotated[float, GUIDED] = ...`. Keys of a group that asks for something
    appear in a saved configuration only where they differ from their defaults.
    """

    where: ClassVar[tuple[Needs, ...]] = ()


TEXT = Needs(("text",), "text models")
IMAGE = Needs(("image",), "image models")
DRAWN = Needs(("image", "motion"), "image and motion models")
VISION = Needs(("vision",), "vision-language models")
CONTROL = Needs(("control",), "control models")
DENOISING = Needs(("denoising",), "diffusion models")
ADAPTERS = Needs(("adapters",), "models that take adapters")
STAGES = Needs(("stages",), "methods of several runs", "and {method} is one run")
