"""Who says how near texts and motions are: encoders by name. Never those that a model was trained with.

    t2m:DIR                  a converted T2M evaluator, whose numbers papers report
    retrieval:DIR            a folder of `prefopt.motion.retrieval`
    world:motion[:evaluator] the world's evaluator, which no run is trained with
    world:motion:reward      the one that runs on the world are trained with, to see the difference

Legend: B motions (texts), F frames, D features, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.motion.mirror import mirrored_caption

FORMS = "t2m:DIR, retrieval:DIR or world:motion:evaluator"


@dataclass(frozen=True)
class Judge:
    """Encoders into one space, in which distances are Euclidean.

    Attributes:
        name: as given.
        model: has `encode_texts`, `encode_motions` and `stats`.
        reads_tags: whether it reads parts of speech.
    """

    name: str
    model: Any
    reads_tags: bool = False

    def know(self, tagged: Mapping[str, str]) -> None:
        """Tell the parts of speech of captions, and of the same captions with sides exchanged."""
        if self.reads_tags:
            for caption, words in tagged.items():
                self.model.tagged.setdefault(caption, words)
                self.model.tagged.setdefault(mirrored_caption(caption), mirrored_caption(words))

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """(E,) of each different caption, on the CPU."""
        known = list(dict.fromkeys(captions))
        return dict(zip(known, self.model.encode_texts(known).float().cpu(), strict=True))

    @torch.no_grad()
    def motions(self, motions: Sequence[Tensor]) -> Tensor:
        """(B, E) of (F, D) features in physical units, on the CPU."""
        from prefopt.modalities.motion.scorers import padded

        found: Tensor = self.model.encode_motions(*padded(motions))
        return found.float().cpu()


def get_judge(spec: str, device: str = "cpu") -> Judge:
    """The judge that a specification names, loaded.

    Raises:
        ValueError: it names none.
        OSError: a folder that is not there.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    kind, _, rest = spec.partition(":")
    if kind in ("t2m", "retrieval") and rest:
        folder = Path(rest).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"--judge {spec}: there is no folder {folder}")
        if kind == "t2m":
            from prefopt.motion.t2m_evaluator import T2MEvaluator

            return Judge(spec, T2MEvaluator.from_pretrained(str(folder)).to(device), True)
        from prefopt.motion.retrieval import MotionTextModel

        return Judge(spec, MotionTextModel.from_pretrained(str(folder)).to(device))
    name, _, role = rest.partition(":")
    role = {"": "evaluator", "retrieval": "reward"}.get(role, role)
    if kind == "world" and role in ("evaluator", "reward"):
        from prefopt.worlds import get_world

        world: Any = get_world(name)
        if hasattr(world, "scorer"):
            return Judge(spec, world.scorer(role).to(device))
    raise ValueError(f"no judge of motions is called {spec!r}; needed {FORMS}")


def check_judge(judge: Judge, codec: str) -> None:
    """Raise ValueError for a judge of other features than the model's."""
    if judge.model.stats.codec != codec:
        raise ValueError(
            f"--judge {judge.name} reads features of {judge.model.stats.codec}, and the model makes those of {codec}: give a judge that "
            "was trained on such data"
        )


def training_judge(model: str) -> str | None:
    """What the run that left a model was judged by while it trained; None where it was not, or is not known."""
    from prefopt.config import read_yaml
    from prefopt.worlds import world_modality

    folder = Path(model).expanduser()
    for place in (folder, folder.parent):
        if not (place / "config.yaml").is_file():
            continue
        config = read_yaml(place / "config.yaml")
        data, judge = str(config.get("data") or ""), config.get("judge")
        if judge:
            # the bare name of a world stands for its rules there, and for its evaluator here
            return f"{judge}:pass" if str(judge).count(":") == 1 and world_modality(judge) else str(judge)
        if "judge" in config and world_modality(data) is not None:
            return f"{data}:reward"
    return None


def same_judge(one: str, other: str) -> bool:
    """Whether two specifications name the same encoders."""
    return _plain(one) == _plain(other)


def _plain(spec: str) -> tuple[str, ...]:
    kind, _, rest = spec.partition(":")
    if kind != "world":
        return kind, str(Path(rest).expanduser().resolve())
    name, _, role = rest.partition(":")
    return kind, name, {"retrieval": "reward", "": "evaluator"}.get(role, role)
