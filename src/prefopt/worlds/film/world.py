"""The film world: long videos of moving shapes, and a small vision-language model that has seen short ones only.

    >>> from prefopt.worlds import get_world
    >>> world = get_world("film", seed=0)
    >>> world.prompts(2)
    ['ask cyan cross', 'ask yellow square']
    >>> rows = world.comparisons(256)                        # doctest: +SKIP
    >>> model = world.model_dir()                            # doctest: +SKIP

A clip shows one of 24 objects (6 colours, 4 shapes) that moves in one of four directions, and perhaps a flash, early or late. A film is a
row of clips of different objects; the question `ask red square` has one of 12 answers, `left early`. What a clip shows is read off
its pixels without a mistake (`task.read`), so every answer is judged without a judge.

The model is pretrained on the spot on films of one and two clips, few of four, then cached. It answers those nearly without a mistake and gets worse
the longer a film is and the later in it the answer stands: what preferences that are anchored in short clips can mend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prefopt.cache import built_once
from prefopt.worlds.base import (
    Split,
    cache_place,
    check_positive,
    check_shares,
    check_split,
    flipped,
    seed_of,
)
from prefopt.worlds.film import files, measures, rows, task
from prefopt.worlds.film.exam import Exam

CODE_VERSION = 1
"""Part of every cache key. Raise it with any change to this package that changes a model or a clip."""

LENGTHS = (1, 2, 4, 8, 16, 24)
"""Clips of the films that a model is measured on."""
VIDEOS = ("pictures", "video", "videos")
"""Where conditions and rows hold their film."""
QUESTION = re.compile(r"describe|ask \w+ \w+|first \w+ \w+ or \w+ \w+")


@dataclass(frozen=True)
class FilmWorld:
    """Settings of the film world; what it makes depends on them alone (and, in the last digits, on the machine).

    Attributes:
        seed: of clips, films and model.
        noise: standard deviation of the pixels' white noise, where white is 1.
        renders: of each object doing each thing, in the pool of clips that rows are made of.
        clips: of a row's film.
        slot: where in a row's film the clip stands that the question is about: "random", "first" or "last".
        spare: clips in a row's `pool`, at most; there are no more than objects that its film does not show.
        ambiguous: share of the rows whose film shows the object in question twice, and whose chosen answer is the other
            clip's.
        caption_errors: share of the captions behind the rows of stage 2 that say a wrong direction.
        width: of the model, a multiple of 16.
        layers: of its language model.
        pretrain_steps: optimizer steps of the pretraining.
        batch_size: films a step.
    """

    seed: int = 0
    noise: float = 0.05
    renders: int = 8
    clips: int = 8
    slot: rows.Slot = "random"
    spare: int = 16
    ambiguous: float = 0.0
    caption_errors: float = 0.0
    width: int = 64
    layers: int = 3
    pretrain_steps: int = 1800
    batch_size: int = 96

    def __post_init__(self) -> None:
        check_shares(ambiguous=self.ambiguous, caption_errors=self.caption_errors)
        if not 0 <= self.noise <= 0.3:
            raise ValueError(f"noise must lie in [0, 0.3], or clips cannot be read; given {self.noise}")
        if not 2 <= self.clips <= len(task.OBJECTS):
            raise ValueError(
                f"clips must lie in [2, {len(task.OBJECTS)}]: a distractor is needed, and all objects of a film differ; "
                f"given {self.clips}"
            )
        if self.slot not in ("random", "first", "last"):
            raise ValueError(f"slot must be random, first or last; given {self.slot!r}")
        if self.spare < 0:
            raise ValueError(f"spare must be at least 0; given {self.spare}")
        if self.width < 16 or self.width % 16:
            raise ValueError(f"width must be a multiple of 16 (one attention head); given {self.width}")
        check_positive(self, ("renders", "layers", "pretrain_steps", "batch_size"))

    # -- the task ---------------------------------------------------------------------------------------------

    def frames(self, split: Split = "train") -> np.ndarray:
        """(N, 4, 12, 12, 3) uint8: the clips of a split's pool, clip k in the file `clip_files(split) / files.name_of(k)`.

        Every object does everything, `renders` times, each with its own start, ground and noise.
        """
        check_split(split)
        return _frames(self.seed, self.noise, self.renders, split)

    def clip_files(self, split: Split = "train", progress: bool = True) -> Path:
        """Folder of the clips of a split's pool as video files, 2 frames a second; made on first use, then cached.

        Args:
            split: "train" or "test".
            progress: show a bar if standard error is a terminal.

        Raises:
            ModuleNotFoundError: PyAV is not installed.
        """
        check_split(split)

        def build(folder: Path) -> None:
            from prefopt.worlds.pretraining import progress_bar

            frames = self.frames(split)
            with progress_bar("writing the film world's clips", len(frames), progress) as advance:
                for _ in files.write(folder, frames):
                    advance("")

        return built_once(self._place("clips", ("av",), split=split), build)

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """Questions about one object each; the films they are asked about are those of `comparisons`."""
        check_split(split)
        rng = np.random.default_rng(seed_of(f"film prompts {split} {self.seed}"))
        return [task.asked(task.Clip(int(rng.integers(len(task.OBJECTS))), 0)) for _ in range(n)]

    def shown(self, condition: Any) -> list[task.Clip]:
        """What a film shows, clip by clip, read off its pixels.

        Args:
            condition: of an item or a row, with the one film under "pictures", "video" or "videos"; or the film: what holds
                `clips`, a list of clips as rows have them, the path of a file.

        Raises:
            ValueError: no film of this world, or several.
            UnusableItem: it cannot be read.
        """
        from prefopt.sources.videos import as_clips, decode

        film = _film(condition)
        clips = film.clips if hasattr(film, "clips") else as_clips(film, "video")
        pixels = [decode(clip).pixels_FHW3 for clip in clips]
        for one in pixels:
            task.check_shape(one.shape)
        return task.read(np.stack(pixels))

    def verify(self, condition: Any, answer: str) -> float:
        """1 if an answer is right, word for word, else 0.

        Args:
            condition: with the film, see `shown`, and the question under "prompt", a text or messages.
            answer: to it.

        Raises:
            ValueError, UnusableItem: as of `shown`; or no question of this world.
        """
        right = task.right_answer(self.shown(condition), _question(condition))
        return float(answer.lower().split() == right.split())

    # -- the model --------------------------------------------------------------------------------------------

    def model_dir(self, progress: bool = True) -> Path:
        """Folder with the pretrained `Qwen2_5_VLForConditionalGeneration` and its processor; made on first use, then cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """
        from prefopt.worlds.film.learning import pretrain

        def build(folder: Path) -> None:
            pretrain(
                folder,
                seed=self.seed,
                noise=self.noise,
                width=self.width,
                layers=self.layers,
                steps=self.pretrain_steps,
                batch_size=self.batch_size,
                progress=progress,
            )

        return built_once(self._place("model", ("torch", "transformers", "tokenizers")), build)

    def _place(self, kind: Literal["model", "clips"], libraries: Sequence[str], **more: Any) -> Path:
        """Cache folder named after everything its content depends on; how rows are made is not of that."""
        plain = type(self)
        names = ["clips", "slot", "spare", "ambiguous", "caption_errors"]
        names += ["renders"] if kind == "model" else ["width", "layers", "pretrain_steps", "batch_size"]
        of = replace(self, **{name: getattr(plain, name) for name in names})
        return cache_place("film", kind, of, CODE_VERSION, libraries, **more)

    def measured(
        self,
        model: Any,
        tokenizer: Any,
        n: int = 512,
        *,
        lengths: Sequence[int] = LENGTHS,
        split: Split = "test",
    ) -> dict[int, measures.Measures]:
        """How a model answers questions about one object, greedy, by the number of clips of a film.

        The same questions about the same clips at every length; with it grow the other clips around them.

        Args:
            model: the world's, or one trained from it, on any device; left in the mode it is in.
            tokenizer: of the model.
            n: films of each length.
            lengths: clips of a film.
            split: "test" or "train".
        """
        check_split(split)
        for length in lengths:
            task.check_length(length)
        exam = _exam(self.seed, self.noise, split, n)
        found = exam.answered(model, tokenizer, lengths, "detail")
        return {length: measures.measures(answers) for length, answers in found.items()}

    def measured_order(
        self, model: Any, tokenizer: Any, n: int = 512, *, length: int | None = None, split: Split = "test"
    ) -> measures.Order:
        """How a model answers which of two objects comes first.

        Args:
            model: see `measured`.
            tokenizer: of the model.
            n: films.
            length: clips of each; as many as those of rows if None.
            split: "test" or "train".
        """
        check_split(split)
        exam = _exam(self.seed, self.noise, split, n)
        [answers] = exam.answered(model, tokenizer, (length or self.clips,), "order").values()
        return measures.order(answers)

    # -- preferences ------------------------------------------------------------------------------------------

    def comparisons(
        self,
        n: int,
        split: Split = "train",
        label_noise: float = 0.0,
        seed: int = 0,
        *,
        stage: Literal[1, 2] = 1,
        progress: bool = True,
    ) -> list[dict[str, Any]]:
        """Rows of films whose clips are files, each with a question, the right answer and a wrong one.

        Args:
            n: rows.
            split: "train" or "test".
            label_noise: share of the rows in which `chosen` and `rejected` are exchanged, in [0, 1]. What is exchanged
                at some share is also exchanged at a larger one.
            seed: of what is exchanged; all else does not depend on it.
            stage: 1: about one clip, the reference sees it alone; 2: which of two objects comes first, the reference sees
                the whole film.
            progress: show a bar if standard error is a terminal.

        Returns:
            Rows with `id`, `prompt` (messages), `video` (mappings of clips), `chosen`, `rejected` (messages), `evidence`,
            `reference_context`, `stage`, `task_type`, `rejected_kind`, `score_chosen`, `score_rejected` (`verify`),
            `provenance`, `source`; of stage 1 also `anchor`, `pinned`, `pool`.

        Raises:
            ValueError: a share out of its range, or another stage.
            ModuleNotFoundError: PyAV is not installed.
        """
        check_split(split)
        check_shares(label_noise=label_noise)
        folder = self.clip_files(split, progress)

        def place(clip: task.Clip, rng: np.random.Generator) -> dict[str, Any]:
            k = files.number(clip, int(rng.integers(self.renders)), self.renders)
            return rows.mapping_of(str(folder / files.name_of(k)))

        key = f"film rows {split} {self.seed}"
        if stage == 1:
            found = rows.anchored(
                n, split, key, place,
                clips=self.clips, slot=self.slot, spare=self.spare, ambiguous=self.ambiguous,
            )  # fmt: skip
        elif stage == 2:
            found = rows.ordered(n, split, key, place, clips=self.clips, caption_errors=self.caption_errors)
        else:
            raise ValueError(f"stage must be 1 or 2; given {stage!r}")
        for row in flipped(found, label_noise, seed):
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
            row["score_chosen"], row["score_rejected"] = row["score_rejected"], row["score_chosen"]
        return found


@lru_cache(maxsize=4)
def _frames(seed: int, noise: float, renders: int, split: Split) -> np.ndarray:
    frames = task.render(files.pool(renders), noise, f"film clips {split} {seed}")
    frames.setflags(write=False)  # kept for whoever asks next
    return frames


@lru_cache(maxsize=2)
def _exam(seed: int, noise: float, split: Split, n: int) -> Exam:
    return Exam(n, len(task.OBJECTS), f"{split} {seed}", noise)


def _film(condition: Any) -> Any:
    """The one film of a condition or row, or what is one itself."""
    if not isinstance(condition, Mapping):
        return condition
    name = next((name for name in VIDEOS if condition.get(name) is not None), None)
    if name is None:
        raise ValueError(f"needed a film under one of {', '.join(VIDEOS)}; given {', '.join(condition)}")
    found = condition[name]
    if name == "video":
        return found
    if len(found) != 1:
        raise ValueError(f"a question of the film world is about one film; given {len(found)}")
    return found[0]


def _question(condition: Any) -> str:
    """The question in a condition's prompt."""
    prompt = condition.get("prompt", "") if isinstance(condition, Mapping) else ""
    found = QUESTION.findall(prompt if isinstance(prompt, str) else _text_of(prompt[-1]["content"]))
    if not found:
        raise ValueError(f"needed a question of the film world under 'prompt'; given {prompt!r}")
    return str(found[-1])


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(block["text"] for block in content if block.get("type") == "text")
