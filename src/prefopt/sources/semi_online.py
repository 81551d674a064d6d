"""Pairs whose winner comes from data and whose loser the policy samples now (SoPo); and the courses that it is compared with.

    semi_online    winner: data           loser: the worst of K samples of the policy
    online         winner: the best of K samples of the policy   loser: the worst of them
    offline        winner: the best of K samples of the starting model, fixed for the run   loser: the worst of them
    offline_data   winner: data           loser: the worst of K samples of the starting model, fixed for the run
    naive          offline and online together, half of the weight each

Modality-neutral: a latent is whatever a denoising likelihood scores (images, motions). All that is drawn is counted: noise follows
from (seed, example, candidate, round), so that a round can be repeated and does not depend on how examples are spread over
processes.

Legend: B examples, K candidates, N = K B, E width of an embedding, S reverse steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from prefopt.comparisons import Comparison, Encoded
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.metrics.retrieval import area_under_curve
from prefopt.sources.drawer import Drawer
from prefopt.sources.selection import Selected, Similarity, min_similarity, quantile, select

Pairs = Literal["semi_online", "online", "offline", "offline_data", "naive"]
START = -1
"""Round of samples that are fixed for the run."""
CALIBRATION = 64
"""Examples whose candidates tell what a usual reward is."""
FEWEST_TO_TELL = 16
"""Different conditions without which nothing is said of whether a judge recognises the data."""
RECOGNISED = 0.7
"""Area under the curve of matched against shuffled pairs, below which a judge does not recognise the data."""
KEPT_BYTES = 2**29
"""Of fixed samples in memory; what is beyond is drawn again at each visit, and comes out the same."""


class CandidateJudge(Protocol):
    """Says how good samples are, and what they are like."""

    @property
    def reads_conditions(self) -> bool:
        """Whether a sample's score depends on what it was drawn for, so that it must recognise matched data."""
        ...

    def score(self, items: Sequence[EncodedLatent], x_N: Tensor) -> Tensor:
        """(N,) rewards of latents (N, ...) under the items' conditions; higher is better."""
        ...

    def embed(self, items: Sequence[EncodedLatent], x_N: Tensor) -> Tensor | None:
        """(N, E) embeddings of latents alone; None where this judge has none."""
        ...


@dataclass
class Tally:
    """Sums over the examples of some rounds, for the log."""

    examples: float = 0.0
    kept: float = 0.0
    worst: float = 0.0
    best: float = 0.0
    mean: float = 0.0
    similarity: float = 0.0
    network_calls: float = 0.0

    def measures(self) -> dict[str, float]:
        """Means, by the names in the log."""
        if not self.examples:
            return {}
        n = self.examples
        return {
            "collect/kept": self.kept / n,
            "collect/rejected_reward": self.worst / n,
            "collect/best_reward": self.best / n,
            "collect/reward": self.mean / n,
            "collect/similarity": self.similarity / n,
            "collect/network_calls": self.network_calls / n,
        }


@dataclass(kw_only=True)
class Collector:
    """Makes comparisons of examples, by candidates that a model draws and a judge scores.

    Attributes:
        drawer: draws.
        judge: scores.
        pairs: which course; see above.
        candidates: K.
        similarity: of winner and samples.
        tau: losers of this reward or above are good. None until calibrated.
    """

    drawer: Drawer
    judge: CandidateJudge
    pairs: Pairs = "semi_online"
    candidates: int = 2
    similarity: Similarity = "cosine_01"
    tau: float | None = None
    _embeddings: dict[str, Tensor] = field(default_factory=dict)
    _fixed: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _fixed_bytes: int = 0

    def collect(
        self,
        policy: nn.Module,
        start: Any,
        examples: Sequence[Encoded[EncodedLatent]],
        round_: int,
        tally: Tally,
    ) -> list[Encoded[EncodedLatent]]:
        """One example of comparisons for each; the policy is in eval mode.

        Args:
            policy: as it is now.
            start: opens the model that the run began with (`Reference.model`).
            examples: as they are shown in this visit; the first end of their first comparison is the winner.
            round_: of the noise.
            tally: counted into.
        """
        winners, ids = [e.items[winner_of(e)] for e in examples], [e.id for e in examples]
        courses: list[
            tuple[tuple[Tensor, Tensor], int, bool]
        ] = []  # candidates, their round, whether data win
        if self.pairs in ("semi_online", "online", "naive"):
            courses.append((self.drawn(policy, winners, ids, round_), round_, self.pairs == "semi_online"))
            tally.network_calls += len(winners) * self.candidates * len(self.drawer.steps_S2)
        if self.pairs in ("offline", "offline_data", "naive"):
            courses.append((self.fixed(start, winners, ids), START, self.pairs == "offline_data"))
        made = [
            self.compared(examples, *drawn, of_round, tally, data_wins, share=1 / len(courses))
            for drawn, of_round, data_wins in courses
        ]
        return [joined(parts) for parts in zip(*made, strict=True)]

    def drawn(
        self, model: nn.Module, winners: Sequence[EncodedLatent], ids: Sequence[str], round_: int
    ) -> tuple[Tensor, Tensor]:
        """(K, B, ...) candidates and their (K, B) rewards."""
        items = [item for _ in range(self.candidates) for item in winners]
        names = [f"candidate {k} of {i}" for k in range(self.candidates) for i in ids]
        x_N = self.drawer.draw(model, items, names, round_)
        reward_N = self.judge.score(items, x_N).float().cpu()
        return x_N.unflatten(0, (self.candidates, -1)), reward_N.view(self.candidates, -1)

    def fixed(
        self, start: Any, winners: Sequence[EncodedLatent], ids: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """The same of the model that the run began with: drawn once an example."""
        new = [n for n, i in enumerate(ids) if shown_key(i, winners[n]) not in self._fixed]
        if new:
            with start() as model:
                model.eval()
                drawn = self.drawn(model, [winners[n] for n in new], [ids[n] for n in new], START)
            fresh = {
                shown_key(ids[n], winners[n]): (drawn[0][:, j], drawn[1][:, j]) for j, n in enumerate(new)
            }
        else:
            fresh = {}
        known = self._fixed | fresh
        if self._fixed_bytes < KEPT_BYTES:
            self._fixed = known
            self._fixed_bytes += sum(x.nbytes for x, _ in fresh.values())
        both = [known[shown_key(i, item)] for i, item in zip(ids, winners, strict=True)]
        return torch.stack([x for x, _ in both], 1), torch.stack([r for _, r in both], 1)

    def compared(
        self,
        examples: Sequence[Encoded[EncodedLatent]],
        x_KB: Tensor,
        reward_KB: Tensor,
        round_: int,
        tally: Tally,
        data_wins: bool,
        share: float = 1.0,
    ) -> list[Encoded[EncodedLatent]]:
        """The worst candidate against the winner of the data, or against the best candidate.

        Args:
            examples: whose rows' weights and columns stay.
            x_KB, reward_KB: candidates and their rewards.
            round_: of the candidates.
            tally: counted into.
            data_wins: against which.
            share: of a row's weight.
        """
        selected = select(reward_KB)
        winners = [e.items[winner_of(e)] for e in examples]
        similarity_B = self.similarities(winners, x_KB) if data_wins else torch.zeros(len(examples))
        columns = self.columns(selected, similarity_B, data_wins)
        found = []
        for b, (item, example) in enumerate(zip(winners, examples, strict=True)):
            row = example.comparisons[0]
            ends = {"worst": int(selected.worst_B[b]), "best": int(selected.best_B[b])}
            made = {
                # a sample is named by its place: two of one example may be equal in all but their noise
                name: replace(item, latent=f"{example.id} candidate {k} of round {round_}", drawn=x_KB[k, b])
                for name, k in ends.items()
            }
            pair = (item if data_wins else made["best"], made["worst"])
            told = {**row.columns, **{name: float(c[b]) for name, c in columns.items()}}
            found.append(
                Encoded(example.id, pair, (Comparison(0, 1, weight=row.weight * share, columns=told),))
            )
        tally.examples += len(examples)
        tally.kept += float((selected.worst_reward_B < self.threshold).sum())
        tally.worst += float(selected.worst_reward_B.sum())
        tally.best += float(selected.best_reward_B.sum())
        tally.mean += float(reward_KB.mean(0).sum())
        tally.similarity += float(similarity_B.sum())
        return found

    @property
    def threshold(self) -> float:
        """tau; infinite until there is one."""
        return float("inf") if self.tau is None else self.tau

    def columns(self, selected: Selected, similarity_B: Tensor, data_wins: bool) -> Mapping[str, Tensor]:
        """What the objective reads of a comparison; none where both ends are samples, which are compared plainly."""
        if not data_wins:
            return {}
        reward_B = selected.worst_reward_B
        return {
            "min_similarity": similarity_B,
            "rejected_reward": reward_B,
            "tau": torch.full_like(reward_B, self.threshold),
        }

    def similarities(self, winners: Sequence[EncodedLatent], x_KB: Tensor) -> Tensor:
        """(B,) S; 0 where the judge has no embeddings."""
        if self.similarity == "none":
            return torch.zeros(len(winners))
        items = [item for _ in range(len(x_KB)) for item in winners]
        sample_NE = self.judge.embed(items, x_KB.flatten(0, 1))
        if sample_NE is None:
            return torch.zeros(len(winners))
        sample_KBE = sample_NE.float().cpu().unflatten(0, (len(x_KB), -1))
        return min_similarity(self.embedded(winners), sample_KBE, self.similarity)

    def embedded(self, winners: Sequence[EncodedLatent]) -> Tensor:
        """(B, E) embeddings of winners, each computed once."""
        likelihood = self.drawer.likelihood
        keys = [shown_key("", item) for item in winners]
        new = {key: item for key, item in zip(keys, winners, strict=True) if key not in self._embeddings}
        if new:
            items = list(new.values())
            found_BE = self.judge.embed(items, likelihood.latents(items))
            assert found_BE is not None  # it has embeddings of samples
            self._embeddings |= dict(zip(new, found_BE.float().cpu(), strict=True))
        return torch.stack([self._embeddings[key] for key in keys])

    def calibrate(
        self, policy: nn.Module, examples: Sequence[Encoded[EncodedLatent]], share: float | None
    ) -> tuple[list[Encoded[EncodedLatent]], dict[str, Any]]:
        """Candidates of some examples before training, what tau is by them, and whether the judge recognises the data.

        Args:
            policy: still the starting model, in eval mode.
            examples: as they are shown.
            share: of losers that are kept; None leaves tau as it is.

        Returns:
            Comparisons of these examples, to compare policy and reference on; what was found.

        Raises:
            ValueError: the judge scores matched data hardly above shuffled ones.
        """
        winners = [e.items[winner_of(e)] for e in examples]
        ids = [e.id for e in examples]
        found: dict[str, Any] = {"examples": len(examples)}
        found |= self.recognised(winners)
        x_KB, reward_KB = self.drawn(policy, winners, ids, START - 1)
        worst_B = select(reward_KB).worst_reward_B
        quantiles = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
        found["worst_rewards"] = [round(float(q), 4) for q in worst_B.quantile(quantiles)]
        if share is not None:
            self.tau = quantile(worst_B, share)
            found |= {"tau": self.tau, "share": share}
        made = self.compared(examples, x_KB, reward_KB, START - 1, Tally(), data_wins=True)
        return made, found

    def recognised(self, winners: Sequence[EncodedLatent]) -> dict[str, float]:
        """How well matched data are told from shuffled ones; nothing where a judge needs no conditions, or data are few."""
        if not self.judge.reads_conditions or len({item.prompt for item in winners}) < FEWEST_TO_TELL:
            return {}
        x_B = self.drawer.likelihood.latents(winners)
        matched_B = self.judge.score(winners, x_B).float().cpu()
        others = list(winners[1:]) + list(winners[:1])
        strange = [n for n, (a, b) in enumerate(zip(winners, others, strict=True)) if a.prompt != b.prompt]
        # under another's text; its length stays
        moved = [replace(winners[n], prompt=others[n].prompt) for n in strange]
        shuffled_B = self.judge.score(moved, x_B[strange]).float().cpu()
        area = area_under_curve(matched_B, shuffled_B)
        if area < RECOGNISED:
            raise ValueError(
                f"the judge hardly tells the data's samples from those of other prompts (AUC {area:.2f}, needed "
                f"{RECOGNISED}; mean score {float(matched_B.mean()):.3f} matched, {float(shuffled_B.mean()):.3f} shuffled): was it trained on "
                "such data, in these units and with this normalisation? Without a judge that recognises the data, losers "
                "are chosen at random"
            )
        return {"recognition": area, "matched_reward": float(matched_B.mean())}


def winner_of(example: Encoded[Any]) -> int:
    """Index of the item that the first comparison's votes favour."""
    edge = example.comparisons[0]
    turned = edge.second is not None and edge.outcome.lose > edge.outcome.win
    return edge.second if turned and edge.second is not None else edge.first


def shown_key(i: str, item: EncodedLatent) -> str:
    """Names an item of an example as it is shown: by its latent, and all else but the noise's epoch."""
    return f"{i}\0{replace(item, example='', slot=0, epoch=0)!r}"


def joined(parts: Sequence[Encoded[EncodedLatent]]) -> Encoded[EncodedLatent]:
    """Several examples of one row as one."""
    items: tuple[EncodedLatent, ...] = ()
    edges: tuple[Comparison, ...] = ()
    for part in parts:
        shift = len(items)
        edges += tuple(
            replace(e, first=e.first + shift, second=None if e.second is None else e.second + shift)
            for e in part.comparisons
        )
        items += part.items
    return Encoded(parts[0].id, items, edges)
