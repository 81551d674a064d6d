"""The caption world: pictures of shapes with exact captions, and a small vision-language model that adds what is not there.

    >>> from prefopt.worlds import get_world
    >>> world = get_world("caption", seed=0)
    >>> pictures = world.pictures(2)                         # scenes, 18 x 18 pixels each, captions
    >>> world.verify({"images": [pictures.image(0)]}, pictures.captions[0])
    1.0
    >>> rows = world.comparisons(600, split="train")         # doctest: +SKIP
    >>> model = world.model_dir()                            # doctest: +SKIP

A picture is a grid of 3 x 3 cells under noise, with 2 to 4 objects of 12 classes (4 colours, 3 shapes); its caption names them
in raster order. What a picture shows is read off its pixels without a mistake (`task.render`), and what a caption names off
its words, so hallucinations are counted without a judge.

The model is pretrained on the spot, then cached. In its pretraining 40 % of the captions also name the companion of
an object, a class that is not there: a language prior against the picture. So it sees well, and still names about one thing
in fifteen that is not there, which is what preferences can mend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prefopt.cache import built_once
from prefopt.sources.pictures import as_ref, decode
from prefopt.worlds.base import (
    Split,
    cache_place,
    check_positive,
    check_shares,
    check_split,
    flipped,
    seed_of,
)
from prefopt.worlds.caption import measures, rows, task
from prefopt.worlds.caption.model import PROMPT
from prefopt.worlds.pixels import as_batch

CODE_VERSION = 1
"""Part of every cache key. Raise it with any change to this package that changes a model or a sample."""

PER_PICTURE = 4
"""Captions drawn of each picture of a row, at temperature 1."""
PICTURES = ("pictures", "images", "image")
"""Where conditions and rows hold their pictures."""


class Samples(NamedTuple):
    """Captions that the pretrained model drew.

    Attributes:
        captions: of each picture.
        contrasts: of its edit.
    """

    captions: list[list[str]]
    contrasts: list[list[str]]


@dataclass(frozen=True)
class CaptionWorld:
    """Settings of the caption world; what it makes depends on them alone (and, in the last digits, on the machine).

    Attributes:
        seed: of pictures, model and samples.
        noise: standard deviation of the pixels' white noise, where white is 1.
        prior: share of the pretraining's captions that name an absent companion.
        width: of the vision tower and the language model, a multiple of 16.
        layers: of each.
        pretrain_steps: optimizer steps of the pretraining.
        batch_size: scenes a step.
    """

    seed: int = 0
    noise: float = 0.3
    prior: float = 0.4
    width: int = 64
    layers: int = 2
    pretrain_steps: int = 800
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_shares(prior=self.prior)
        if not 0 <= self.noise <= 0.6:
            raise ValueError(
                f"noise must lie in [0, 0.6], or hardly a picture can be read; given {self.noise}"
            )
        if self.width < 16 or self.width % 16:
            raise ValueError(f"width must be a multiple of 16 (one attention head); given {self.width}")
        check_positive(self, ("layers", "pretrain_steps", "batch_size"))

    # -- the task ---------------------------------------------------------------------------------------------

    def pictures(self, n: int, split: Split = "train") -> task.Scenes:
        """`n` scenes with their pictures; the first k of them are `pictures(k)`. No scene is in both splits."""
        check_split(split)
        return task.draw(n, f"captions {split} {self.seed}", split, self.noise)

    def contrasts(self, n: int, split: Split = "train") -> task.Scenes:
        """`pictures(n, split)`, each with one object added, removed or replaced (`task.edit`), under noise of its own."""
        scenes = self.pictures(n, split).scenes
        return task.edits(scenes, f"contrasts {split} {self.seed}", self.noise)

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """The prompts of `pictures(n, split)`. There is one; what differs between splits are the pictures."""
        check_split(split)
        return [PROMPT] * n

    def objects(self, condition: Any) -> tuple[int, ...]:
        """The classes that a picture shows, in raster order, read off its pixels.

        Args:
            condition: of an item or a row, with the one picture under "pictures", "images" or "image"; or the picture: an
                `ImageRef` or what holds one as its `ref`, a PIL image, bytes, a path.

        Raises:
            ValueError: no picture of this world, or several.
            UnusableItem: it cannot be read.
        """
        return task.objects_of(
            task.read(as_batch([decode(as_ref(_picture(condition), "image"))], task.SIDE))[0]
        )

    def verify(self, condition: Any, caption: str) -> float:
        """F1 in [0, 1] of the classes that a caption names, against those that its picture shows.

        Args:
            condition: with the picture; see `objects`.
            caption: of it.

        Raises:
            ValueError, UnusableItem: as of `objects`.
        """
        return measures.f1(self.objects(condition), caption)

    def hallucinated(self, condition: Any, caption: str) -> list[task.Mention]:
        """The mentions of a caption whose objects are not in its picture, for marking them.

        Args:
            condition: with the picture; see `objects`.
            caption: of it.
        """
        return measures.hallucinated(self.objects(condition), caption)

    # -- the model --------------------------------------------------------------------------------------------

    def model_dir(self, progress: bool = True) -> Path:
        """Folder with the pretrained `LlavaForConditionalGeneration` and its processor; made on first use, then cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """
        from prefopt.worlds.caption import model as caption_model

        def build(folder: Path) -> None:
            caption_model.pretrain(
                folder,
                seed=self.seed,
                noise=self.noise,
                prior=self.prior,
                width=self.width,
                layers=self.layers,
                steps=self.pretrain_steps,
                batch_size=self.batch_size,
                progress=progress,
            )

        return built_once(self._place("model"), build)

    def _place(self, kind: str, **more: Any) -> Path:
        """Cache folder named after everything its content depends on."""
        return cache_place(
            "caption", kind, self, CODE_VERSION, ("torch", "transformers", "tokenizers"), **more
        )

    def samples(self, n: int, split: Split = "train", progress: bool = True) -> Samples:
        """Captions drawn from the pretrained model, 4 each of `pictures(n, split)` and `contrasts(n, split)`; cached on disk.

        Args:
            n: pictures.
            split: "train" or "test".
            progress: show a bar if standard error is a terminal.
        """

        def build(folder: Path) -> None:
            from prefopt.worlds.caption import model as caption_model

            model, processor = caption_model.load(self.model_dir(progress))
            drawn = Samples(
                *(
                    caption_model.sample_captions(
                        model,
                        processor,
                        scenes.images_BCHW,
                        PER_PICTURE,
                        seed=seed_of(f"caption samples {kind} {split} {self.seed}"),
                        progress=progress,
                    )
                    for kind, scenes in (
                        ("pictures", self.pictures(n, split)),
                        ("contrasts", self.contrasts(n, split)),
                    )
                )
            )
            (folder / "captions.json").write_text(json.dumps(drawn._asdict(), indent=1), encoding="utf-8")

        place = self._place("samples", n=n, split=split)
        return Samples(**json.loads((built_once(place, build) / "captions.json").read_text(encoding="utf-8")))

    def measured(
        self,
        model: Any,
        processor: Any,
        n: int = 500,
        *,
        split: Split = "test",
        temperature: float = 0.0,
        seed: int = 0,
        progress: bool = False,
    ) -> measures.Measures:
        """How a model captions `pictures(n, split)`.

        Args:
            model: a vision-language model, on any device; left in the mode it is in.
            processor: its processor, with a chat template.
            n: pictures.
            split: "test" or "train".
            temperature: of the softmax; 0 is greedy.
            seed: of the sampling.
            progress: show a bar if standard error is a terminal.
        """
        from prefopt.worlds.caption import model as caption_model

        pictures = self.pictures(n, split)
        drawn = caption_model.sample_captions(
            model,
            processor,
            pictures.images_BCHW,
            temperature=temperature,
            seed=seed_of(f"caption evaluation {seed}"),
            progress=progress,
        )
        shown = map(task.objects_of, pictures.scenes)
        return measures.measures((objects, caption) for objects, [caption] in zip(shown, drawn, strict=True))

    # -- preferences ------------------------------------------------------------------------------------------

    def comparisons(
        self,
        n: int,
        split: Split = "train",
        label_noise: float = 0.0,
        seed: int = 0,
        *,
        progress: bool = True,
    ) -> list[dict[str, Any]]:
        """Rows of two pictures that differ in one object, each with its exact caption and a worse one.

        A rejected caption is the most hallucinated of 4 that the pretrained model drew; where none names what is not
        there, the exact caption with an absent companion.

        Args:
            n: rows.
            split: "train" or "test".
            label_noise: share of the rows in which `chosen` and `rejected` are exchanged, in [0, 1]. What is exchanged
                at some share is also exchanged at a larger one.
            seed: of what is exchanged; all else does not depend on it.
            progress: show a bar if standard error is a terminal.

        Returns:
            Rows with `id`, `prompt` (messages), `image`, `contrast_image` (`{"bytes": PNG, "path": None}`, as
            `datasets.Image` has them), `chosen`, `rejected`, `contrast_chosen`, `contrast_rejected` (messages),
            `score_chosen`, `score_rejected` (`verify`), `source`.

        Raises:
            ValueError: a share out of its range.
        """
        check_shares(label_noise=label_noise)
        pictures, contrasts = self.pictures(n, split), self.contrasts(n, split)
        found = rows.of_scenes(pictures, contrasts, *self.samples(n, split, progress), split)
        for row in flipped(found, label_noise, seed):
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
            row["score_chosen"], row["score_rejected"] = row["score_rejected"], row["score_chosen"]
        return found


def _picture(condition: Any) -> Any:
    """The one picture of a condition or row, or what is one itself."""
    found = condition
    if isinstance(condition, Mapping):
        found = next((condition[name] for name in PICTURES if name in condition), condition)
    if isinstance(found, list | tuple):
        if len(found) != 1:
            raise ValueError(f"a caption of this world is of one picture; given {len(found)}")
        found = found[0]
    # a picture of a condition may say more than where the image is
    return getattr(found, "ref", found)
