"""The numbers of one set of motions: by a judge of texts and motions, of their figures alone, and by a world's rules.

Legend: N motions, F frames, J joints, D features, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefopt.metrics import retrieval
from prefopt.metrics.frechet import frechet_distance
from prefopt.metrics.motion import floor_penetration, foot_skating, jerk
from prefopt.modalities.motion.evaluating.judges import Judge
from prefopt.modalities.motion.evaluating.material import Material
from prefopt.motion.codec import Codec
from prefopt.motion.mirror import mirrored_caption

BATCH = 256
"""Motions that are read or looked at together."""
TOP = 3

Order = Callable[[Sequence[str], int], list[int]]
"""(captions, seed) -> places of the captions, pool after pool."""


@dataclass
class Seen:
    """What is known of motions, a row each.

    Attributes:
        embedding_NE: of the judge.
        body_N: foot_skating, jerk, floor_penetration of each.
    """

    embedding_NE: Tensor
    body_N: dict[str, Tensor]

    def some(self, places: Sequence[int]) -> Seen:
        """Of some of them."""
        index = list(places)
        return Seen(self.embedding_NE[index], {name: x[index] for name, x in self.body_N.items()})


def seen(motions: Sequence[Tensor], judge: Judge, codec: Codec) -> Seen:
    """Look at (F, D) motions in physical units.

    Raises:
        ValueError: one that is not finite, or that the judge cannot read.
    """
    return Seen(judge.motions(motions), body(motions, codec))


def seen_truth(material: Material, judge: Judge, codec: Codec) -> Seen:
    """Look at the true motions, read some at a time."""
    samples = material.samples
    parts = [
        seen([sample.read() for sample in samples[start : start + BATCH]], judge, codec)
        for start in range(0, len(samples), BATCH)
    ]
    return Seen(
        torch.cat([part.embedding_NE for part in parts]),
        {name: torch.cat([part.body_N[name] for part in parts]) for name in parts[0].body_N},
    )


def body(motions: Sequence[Tensor], codec: Codec) -> dict[str, Tensor]:
    """(N,) foot_skating (share), jerk (m/s^3) and floor_penetration (m) of each motion."""
    from prefopt.modalities.motion.scorers import padded

    found: dict[str, list[Tensor]] = {"foot_skating": [], "jerk": [], "floor_penetration": []}
    skeleton = codec.skeleton
    toes = [foot for foot in skeleton.feet if foot not in skeleton.parents]
    for start in range(0, len(motions), BATCH):
        positions = [codec.positions(x_FD) for x_FD in motions[start : start + BATCH]]
        x_BFJ3, length_B = padded(positions)
        found["foot_skating"].append(foot_skating(x_BFJ3, length_B, toes, codec.fps))
        found["jerk"].append(jerk(x_BFJ3, length_B, codec.fps))
        found["floor_penetration"].append(floor_penetration(x_BFJ3, length_B))
    return {name: torch.cat(parts) for name, parts in found.items()}


# -- by a judge ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Embeddings of captions by themselves.

    Attributes:
        of: (E,) by caption.
    """

    of: dict[str, Tensor]

    def embed(self, captions: Sequence[str]) -> Tensor:
        """(N, E)."""
        return torch.stack([self.of[caption] for caption in captions])


def texts_of(judge: Judge, material: Material) -> Texts:
    """Every caption of the material, and those with sides as they are in the mirror."""
    captions = list(dict.fromkeys(text for sample in material.samples for text in sample.captions))
    judge.know({t: words for s in material.samples for t, words in zip(s.captions, s.tagged, strict=False)})
    return Texts(judge.texts([*captions, *(mirrored_caption(text) for text in captions)]))


def by_judge(
    captions: Sequence[str],
    texts: Texts,
    motion_NE: Tensor,
    true_ME: Tensor,
    seed: int,
    order: Order | None = None,
) -> tuple[dict[str, float], Tensor]:
    """What the field reports, and each text's place of its own motion.

    Args:
        captions: of each motion.
        texts: knows them.
        motion_NE: embeddings of the motions.
        true_ME: of all true motions, for FID.
        seed: of the pools, and of the pairs for Diversity.
        order: makes pools that are not drawn at random.

    Returns:
        r_precision_1 to _3, mm_dist (of all motions), fid, expected_diversity, diversity where there are enough
        motions, side_accuracy where a caption tells a side; and (N,) ranks, NaN outside of pools.
    """
    text_NE = texts.embed(captions)
    if order is None:
        ranked = retrieval.ranking(text_NE, motion_NE, seed=seed)
        rank_N = ranked.ranks_N
    else:
        places = order(captions, seed)
        ranked = retrieval.ranking(text_NE[places], motion_NE[places])
        rank_N = torch.full((len(captions),), torch.nan, dtype=torch.float64)
        rank_N[places] = ranked.ranks_N
    found = {f"r_precision_{k}": value for k, value in enumerate(ranked.r_precision, 1)}
    found["mm_dist"] = retrieval.matching_score(text_NE, motion_NE)
    found["fid"] = frechet_distance(motion_NE, true_ME)
    found["expected_diversity"] = retrieval.expected_diversity(motion_NE)
    if len(motion_NE) > retrieval.DIVERSITY_PAIRS:
        found["diversity"] = retrieval.diversity(motion_NE, seed=seed)
    sides = side_accuracy(captions, texts, motion_NE)
    return found | ({} if sides is None else {"side_accuracy": sides}), rank_N


def side_accuracy(captions: Sequence[str], texts: Texts, motion_NE: Tensor) -> float | None:
    """Share of the motions that are nearer to their caption than to it with left and right exchanged; ties are half.

    Of the captions that tell a side or a way of turning; None where none does.
    """
    sided = [n for n, caption in enumerate(captions) if mirrored_caption(caption) != caption]
    if not sided:
        return None
    own, other = (
        (texts.embed([said(captions[n]) for n in sided]) - motion_NE[sided]).norm(dim=-1)
        for said in (str, mirrored_caption)
    )
    return float(((own < other).double() + (own == other).double() / 2).mean())


def in_world_pools(captions: Sequence[str], seed: int) -> list[int]:
    """Pools of a world's captions that have no program twice, of which one motion is as right as the other.

    Raises:
        ValueError: too few programs for a pool.
    """
    from prefopt.worlds.motion.measures import pools
    from prefopt.worlds.motion.task import parse_caption

    shuffled = torch.randperm(len(captions), generator=torch.Generator().manual_seed(seed)).tolist()
    found = [shuffled[n] for n in pools([parse_caption(captions[n]) for n in shuffled])]
    if not found:
        raise ValueError(
            f"{len(captions)} captions make no pool of {retrieval.POOL} different programs: take more (--limit, --samples)"
        )
    return found


# -- of the figures, by rules --------------------------------------------------------------------------------


def by_body(found: Seen) -> dict[str, float]:
    """Means of foot_skating, jerk and floor_penetration."""
    return {name: float(values_N.mean()) for name, values_N in found.body_N.items()}


def by_rules(world: Any, captions: Sequence[str], motions: Sequence[Tensor]) -> dict[str, float]:
    """Shares of right verdicts of a world, as rule_pass, rule_attr, rule_side, ..."""
    verdicts = world.verdicts(list(captions), list(motions))
    return {f"rule_{name}": float(x.nanmean()) for name, x in verdicts.items() if not bool(x.isnan().all())}
