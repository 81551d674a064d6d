"""Scores of motions for texts, behind one call: encoders of texts and motions, worlds, functions.

    specification               score
    world:motion                exact: 1 where a motion does all that its caption says, else 0
    world:motion:NAME           another measure of the world: attr (share of what is right), side, count, ..., retrieval (its encoders)
    retrieval:DIR               (cos + 1) / 2 of text and motion, by a folder of `prefopt.motion.retrieval`
    t2m:DIR                     minus the distance of text and motion, by a converted T2M evaluator

Features are in physical units; every model has its own statistics.

Legend: B motions, F frames, D features, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FORMS = "world:NAME, world:NAME:MEASURE, retrieval:DIR or t2m:DIR"


@dataclass(frozen=True)
class MotionScorer:
    """What scores motions.

    Attributes:
        name: of the specification.
        function: (prompts, features (B, F, D), lengths (B,)) -> (B,) scores, higher is better.
        embedder: (features, lengths) -> (B, E); None where there are no embeddings.
        reads_texts: whether a score depends on the text.
    """

    name: str
    function: Callable[[Sequence[str], Tensor, Tensor], Tensor]
    embedder: Callable[[Tensor, Tensor], Tensor] | None = None
    reads_texts: bool = True

    @torch.no_grad()
    def score(self, prompts: Sequence[str], features_BFD: Tensor, length_B: Tensor) -> Tensor:
        """(B,) scores on the CPU.

        Raises:
            ValueError: scores that are not B finite numbers.
        """
        found = torch.as_tensor(self.function(prompts, features_BFD, length_B)).float().cpu()
        if found.shape != (len(prompts),) or not bool(found.isfinite().all()):
            raise ValueError(
                f"{self.name} gave scores of shape {tuple(found.shape)}, finite: {bool(found.isfinite().all())}, for {len(prompts)} "
                "motions; needed one finite number each"
            )
        return found

    @torch.no_grad()
    def embed(self, features_BFD: Tensor, length_B: Tensor) -> Tensor | None:
        """(B, E) embeddings; None where there are none."""
        return None if self.embedder is None else self.embedder(features_BFD, length_B).float().cpu()


def get_scorer(spec: str, device: str = "cpu") -> MotionScorer:
    """The scorer that a specification names.

    Raises:
        ValueError: it names none.
        OSError: a folder that is not there.
    """
    kind, _, rest = spec.partition(":")
    if kind == "world" and rest:
        from prefopt.worlds import get_world

        name, _, measure = rest.partition(":")
        world: Any = get_world(name)
        if not hasattr(world, "verdicts"):
            raise ValueError(f"{spec}: the {name} world has no motions to score; needed {FORMS}")
        return of_world(world, measure or "pass", device)
    if kind == "retrieval" and rest:
        from prefopt.motion.retrieval import MotionTextModel

        return of_encoders(spec, MotionTextModel.from_pretrained(rest), device)
    if kind == "t2m" and rest:
        from prefopt.motion.t2m_evaluator import T2MEvaluator

        return of_evaluator(spec, T2MEvaluator.from_pretrained(rest), device)
    raise ValueError(f"no scorer of motions is called {spec!r}; needed {FORMS}")


def of_encoders(name: str, model: Any, device: str) -> MotionScorer:
    """A scorer of a `MotionTextModel`."""
    model = model.to(device)
    return MotionScorer(name, model.score, model.encode_motions)


def of_evaluator(name: str, model: Any, device: str) -> MotionScorer:
    """A scorer of a T2M evaluator, whose embeddings are compared by their distance."""
    model = model.to(device)

    def score(prompts: Sequence[str], features_BFD: Tensor, length_B: Tensor) -> Tensor:
        text_BE, motion_BE = model.encode_texts(prompts), model.encode_motions(features_BFD, length_B)
        return -(text_BE - motion_BE).norm(dim=-1)

    return MotionScorer(name, score, model.encode_motions)


def of_world(world: Any, measure: str, device: str) -> MotionScorer:
    """A world's exact verdicts, or its trained encoders."""
    name = f"the motion world's {measure}"
    if measure == "retrieval":
        return of_encoders(name, world.scorer("reward"), device)

    def score(prompts: Sequence[str], features_BFD: Tensor, length_B: Tensor) -> Tensor:
        motions = [x_FD[:n] for x_FD, n in zip(features_BFD, length_B.tolist(), strict=True)]
        found = world.verdicts(prompts, motions)
        if measure not in found:
            raise ValueError(
                f"the motion world has no measure {measure!r}; there are {', '.join(found)}, retrieval"
            )
        told: Tensor = found[measure]
        return told.nan_to_num(1.0)  # what a caption does not ask for is not wrong

    return MotionScorer(name, score)


def of_function(function: Callable[[Any, Any], float]) -> MotionScorer:
    """A user's function of (prompt, features (F, D) in physical units)."""

    def score(prompts: Sequence[str], features_BFD: Tensor, length_B: Tensor) -> Tensor:
        each = zip(prompts, features_BFD, length_B.tolist(), strict=True)
        return torch.tensor([float(function(prompt, x_FD[:n])) for prompt, x_FD, n in each])

    return MotionScorer("the given reward", score)


def padded(motions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, F, D) motions with zeros behind their ends, and their (B,) lengths."""
    length_B = torch.tensor([len(x) for x in motions])
    return torch.nn.utils.rnn.pad_sequence(list(motions), batch_first=True), length_B
