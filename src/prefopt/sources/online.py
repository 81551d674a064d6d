"""Comparisons that a diffusion policy makes of itself while training.

    StepSampler        K candidates of each reverse step, best against worst (SPO, LPO, GradSPO)
    TrajectorySampler  K whole trajectories a prompt, each step of the better against the same step of the worse (D3PO)

Noise is counted: it follows from (seed, prompt id, round, place), so that a round can be repeated and does not depend
on how prompts are spread over processes.

Legend: B prompts, K candidates or trajectories, S reverse steps, C channels, H W latent height and width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from prefopt.comparisons import Comparison, Encoded
from prefopt.likelihoods.process import counted_noise
from prefopt.likelihoods.steps import EncodedStep, GuidedNetwork, State, transition
from prefopt.likelihoods.transition import SMALLEST_STD, GaussianTransition

ThresholdRule = Literal["sigma", "variance", "linear", "quantile"]


class Judge(Protocol):
    """Scores candidates."""

    @property
    def sees(self) -> Literal["noisy", "clean"]:
        """What it is given: x_t' itself, or the clean latents predicted from it."""
        ...

    def __call__(self, x_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores.

        Args:
            x_BCHW: latents as the network takes them.
            t_B: their timestep, as the network takes it (0 for final images); a judge of clean latents may ignore it.
            prompts: one for each.
        """
        ...


@dataclass(frozen=True)
class Gap:
    """The least gap between best and worst, by step.

    gap = softmax of both scores, best minus worst = tanh((S_w - S_l) / 2); a pair is kept where it exceeds the
    threshold (LPO, arXiv 2502.01051, section 4; SPO, arXiv 2406.04314).

    Attributes:
        low, high: thresholds; equal for a constant one.
        rule: what runs from low to high between the cleanest and the noisiest step in use: "sigma" the step's
            noise, "variance" its square, "linear" the timestep. "quantile": `low` is the share of all pairs of a
            step, seen so far, that is dropped; the scale of the judge plays no part.
    """

    low: float
    high: float
    rule: ThresholdRule = "sigma"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < 1:
            raise ValueError(
                f"threshold must lie in [0, 1), low before high (a gap never exceeds 1); given [{self.low}, {self.high}]"
            )

    def at(self, std_S: Tensor, t_S: Tensor) -> Tensor:
        """(S,) thresholds of the steps in use."""
        scale = {"sigma": std_S, "variance": std_S.square(), "linear": t_S.double()}.get(self.rule, std_S)
        spread = scale.max() - scale.min()
        share = (scale - scale.min()) / spread if spread > 0 else torch.ones_like(scale)
        return self.low + share * (self.high - self.low)


@dataclass
class Tally:
    """Counts of a collection, for the log."""

    pairs: int = 0
    kept: int = 0
    score: float = 0.0
    gap: float = 0.0
    prompts: int = 0
    network_calls: int = 0
    """Summed over prompts; guidance, two conditions in one call, counts once."""

    def measures(self) -> dict[str, float]:
        """Means, by the names in the log."""
        if not self.pairs:
            return {}
        return {
            "collect/pairs": float(self.pairs),
            "collect/kept": self.kept / self.pairs,
            "collect/score": self.score / self.pairs,
            "collect/gap": self.gap / self.pairs,
            "collect/network_calls": self.network_calls / self.prompts,
        }


@dataclass(frozen=True, kw_only=True)
class StepSampler:
    """Candidates of every step in use, best against worst.

    Attributes:
        guided: the policy's network under guidance.
        steps_S2: (S, 2) times and next times, descending; from `transition.inference_timesteps`.
        shape: (C, H, W).
        judge: scores candidates.
        gap: which pairs are kept.
        eta: noise of a step, > 0.
        candidates: K.
        first, last: steps whose candidates are compared; elsewhere one sample is drawn.
        continue_from: "random" candidate, or the "winner".
        judge_timestep: told to the judge: the "candidate"'s own, or the "current" step's (LPO's released code).
        seed: of the run.
        seen: gaps by step, for the quantile rule; whoever collects calls its `settle` after each round.
    """

    guided: GuidedNetwork
    steps_S2: Tensor
    shape: tuple[int, int, int]
    judge: Judge
    gap: Gap
    eta: float = 1.0
    candidates: int = 4
    first: int = 0
    last: int | None = None
    continue_from: Literal["random", "winner"] = "random"
    judge_timestep: Literal["candidate", "current"] = "candidate"
    seed: int = 0
    seen: GapMemory = field(default_factory=lambda: GapMemory())
    keep_anchor: bool = False
    store_noise: Literal["sample", "half_difference", "noise"] = "sample"
    """What an item holds: the sample x_t', or GradSPO's direction: half the difference of both noises, or each noise."""

    def __post_init__(self) -> None:
        check_stochastic(self.eta)
        end = len(self.steps_S2)
        if (self.last is not None and self.last >= end) or not self.steps_in_use:
            last = end - 1 if self.last is None else self.last
            raise ValueError(
                f"steps {self.first} to {last} are to be compared, but there are {end} steps, counted from 0, of "
                f"which {len(self._stds())} have a density"
            )

    @property
    def steps_in_use(self) -> list[int]:
        """Steps whose candidates are compared; never one without a density, as the last of some schedulers is."""
        end = len(self._stds())
        return list(range(self.first, end if self.last is None else min(end, self.last + 1)))

    def _stds(self) -> Tensor:
        """Noise of the steps that have a density."""
        t_S, t_prev_S = self.steps_S2.unbind(1)
        zero = torch.zeros(len(t_S), 1)
        std_S = transition(self.guided.process, zero, zero, t_S, t_prev_S, self.eta).std_B
        return std_S[std_S >= SMALLEST_STD]

    @torch.no_grad()
    def collect(
        self, model: nn.Module, prompts: Sequence[tuple[str, str]], round_: int, tally: Tally
    ) -> list[Encoded[EncodedStep]]:
        """One trajectory a prompt; the pairs that its steps gave.

        Args:
            model: the policy's weights to sample from.
            prompts: (id, text).
            round_: number of this collection.
            tally: counts are added to it.

        Raises:
            ValueError: a score is not finite.
        """
        ids, texts = [i for i, _ in prompts], [text for _, text in prompts]
        device = next(model.parameters()).device
        conditions = {k: v.to(device) for k, v in self.guided.prepare(texts).items()}
        many = {
            k: v.to(device)
            for k, v in self.guided.prepare([t for _ in range(self.candidates) for t in texts]).items()
        }
        x_BCHW = self._noise(ids, round_, "start").to(device)
        thresholds = self.thresholds()
        tally.prompts += len(ids)
        output_BCHW: Tensor | None = None
        found: list[Encoded[EncodedStep]] = []
        # nothing is sampled beyond the last compared step
        for s, (t, t_prev) in enumerate(self.steps_S2[: max(self.steps_in_use) + 1].tolist()):
            t_B, t_prev_B = self._times(t, len(ids)), self._times(t_prev, len(ids))
            if output_BCHW is None:
                output_BCHW = self.guided(model, x_BCHW, t_B, conditions)
                tally.network_calls += len(ids)
            step = transition(self.guided.process, output_BCHW, x_BCHW, t_B, t_prev_B, self.eta)
            if s < self.first:
                x_BCHW, output_BCHW = step.sample(self._noise(ids, round_, f"step {s}").to(device)), None
                continue
            noise_KBCHW = torch.stack(
                [self._noise(ids, round_, f"step {s} candidate {k}") for k in range(self.candidates)]
            ).to(device)
            drawn_KBCHW = step.sample(noise_KBCHW)
            score_KB, next_KBCHW = self._scores(model, drawn_KBCHW, t, t_prev, texts, many, tally)
            best_B, worst_B = score_KB.argmax(0), score_KB.argmin(0)
            of_B = torch.arange(len(ids))
            difference_B = score_KB[best_B, of_B] - score_KB[worst_B, of_B]
            gap_B = torch.tanh(difference_B / 2)
            if thresholds is None:  # differences: gaps of a judge with large scores are all 1
                kept_B = (difference_B > 0) & (
                    difference_B >= self.seen.threshold(s, difference_B, self.gap.low)
                )
            else:
                kept_B = gap_B > thresholds[s]
            tally.pairs += len(ids)
            tally.kept += int(kept_B.sum())
            tally.score += float(score_KB.mean(0).sum())
            tally.gap += float(gap_B.sum())
            anchor_BCHW = (
                self.guided.process.epsilon(output_BCHW, x_BCHW, t_B).float().cpu()
                if self.keep_anchor
                else None
            )
            for b in kept_B.nonzero().flatten().tolist():
                anchor = None if anchor_BCHW is None else anchor_BCHW[b]
                state = State(x_BCHW[b].float().cpu(), t, t_prev, texts[b], anchor)
                places = (int(best_B[b]), int(worst_B[b]))
                ends = self._ends(drawn_KBCHW[:, b], noise_KBCHW[:, b], *places)
                found.append(
                    Encoded(
                        f"{round_}/{ids[b]}/{s}",
                        tuple(EncodedStep(state, e) for e in ends),
                        (Comparison(0, 1),),
                    )
                )
            chosen_B = best_B if self.continue_from == "winner" else self._choice(ids, round_, s)
            x_BCHW = drawn_KBCHW[chosen_B, of_B]
            output_BCHW = None if next_KBCHW is None else next_KBCHW[chosen_B, of_B]
        return found

    def thresholds(self) -> dict[int, float] | None:
        """By step in use; None where they follow the gaps seen."""
        if self.gap.rule == "quantile":
            return None
        use = self.steps_in_use
        return dict(zip(use, self.gap.at(self._stds()[use], self.steps_S2[use, 0]).tolist(), strict=True))

    def _ends(self, drawn_KCHW: Tensor, noise_KCHW: Tensor, best: int, worst: int) -> tuple[Tensor, Tensor]:
        if self.store_noise == "sample":
            return drawn_KCHW[best].float().cpu(), drawn_KCHW[worst].float().cpu()
        first, second = noise_KCHW[best].float().cpu(), noise_KCHW[worst].float().cpu()
        if self.store_noise == "noise":
            return first, second
        half = (first - second) / 2
        return half, -half

    def _scores(
        self,
        model: nn.Module,
        drawn_KBCHW: Tensor,
        t: float,
        t_prev: float,
        texts: Sequence[str],
        conditions: dict[str, Tensor],
        tally: Tally,
    ) -> tuple[Tensor, Tensor | None]:
        """(K, B) scores on the CPU, and the outputs made on the way, which the next step can use again."""
        flat = drawn_KBCHW.flatten(0, 1)
        told = [text for _ in range(self.candidates) for text in texts]
        at = t_prev if self.judge_timestep == "candidate" else t
        output: Tensor | None = None
        seen = flat
        if self.judge.sees == "clean" and t_prev > self.steps_S2[-1, 1]:
            time = self._times(t_prev, len(flat))
            output = self.guided(model, flat, time, conditions)
            tally.network_calls += len(flat)
            seen = self.guided.process.x0(output, flat, time)
        told_B = self.guided.process.model_timestep(self._times(at, len(flat)))
        score_KB = self.judge(seen, told_B, told).float().cpu().view(self.candidates, -1)
        if not bool(score_KB.isfinite().all()):
            bad = int((~score_KB.isfinite()).any(0).nonzero()[0])
            raise ValueError(f"the judge's score of {texts[bad]!r} at timestep {at} is not finite")
        return score_KB, None if output is None else output.unflatten(0, drawn_KBCHW.shape[:2])

    def _times(self, t: float, n: int) -> Tensor:
        return torch.full((n,), t, dtype=self.steps_S2.dtype)

    def _noise(self, ids: Sequence[str], round_: int, place: str) -> Tensor:
        return torch.stack([counted_noise(self.seed, f"{place} of {i}", round_, self.shape)[1] for i in ids])

    def _choice(self, ids: Sequence[str], round_: int, s: int) -> Tensor:
        draws = [counted_noise(self.seed, f"choice {s} of {i}", round_, (1,))[0] for i in ids]
        return torch.tensor([int(u * self.candidates) for u in draws])


@dataclass
class GapMemory:
    """The latest differences between best and worst score of every step, for thresholds that keep a given share.

    Attributes:
        size: differences remembered a step.
        gaps: those of earlier rounds, by step.
        fresh: those of this round.
    """

    size: int = 512
    gaps: dict[int, Tensor] = field(default_factory=dict)
    fresh: dict[int, Tensor] = field(default_factory=dict)

    def threshold(self, s: int, difference_B: Tensor, share: float) -> float:
        """The quantile `share` of step s's differences, these included."""
        self.fresh[s] = difference_B
        known = torch.cat([self.gaps.get(s, difference_B.new_zeros(0)), difference_B])
        return float(known.quantile(share))

    def settle(self, rounds: Sequence[Mapping[int, Tensor]] | None = None) -> None:
        """Remember a round: this process's, or all processes', which then remember the same."""
        for fresh in [self.fresh] if rounds is None else rounds:
            for s, difference_B in fresh.items():
                known = torch.cat([self.gaps.get(s, difference_B.new_zeros(0)), difference_B])
                self.gaps[s] = known[-self.size :]
        self.fresh = {}


@dataclass(frozen=True, kw_only=True)
class TrajectorySampler:
    """Whole trajectories; the judge's order of their final images is applied to every step (D3PO, arXiv 2311.13231).

    Attributes:
        guided, steps_S2, shape, judge, eta, seed: as in `StepSampler`.
        candidates: K trajectories a prompt.
    """

    guided: GuidedNetwork
    steps_S2: Tensor
    shape: tuple[int, int, int]
    judge: Judge
    eta: float = 1.0
    candidates: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_stochastic(self.eta)

    @torch.no_grad()
    def collect(
        self, model: nn.Module, prompts: Sequence[tuple[str, str]], round_: int, tally: Tally
    ) -> list[Encoded[EncodedStep]]:
        """K trajectories a prompt; for every two of different score, one comparison a step."""
        device = next(model.parameters()).device
        texts = [text for _, text in prompts for _ in range(self.candidates)]
        names = [f"{i} trajectory {k}" for i, _ in prompts for k in range(self.candidates)]
        conditions = {k: v.to(device) for k, v in self.guided.prepare(texts).items()}
        x_NCHW = self._noise(names, round_, "start").to(device)
        tally.prompts += len(prompts)
        path: list[tuple[list[State], Tensor]] = []
        for s, (t, t_prev) in enumerate(self.steps_S2.tolist()):
            t_N = torch.full((len(texts),), t, dtype=self.steps_S2.dtype)
            t_prev_N = torch.full((len(texts),), t_prev, dtype=self.steps_S2.dtype)
            output_NCHW = self.guided(model, x_NCHW, t_N, conditions)
            tally.network_calls += len(texts)
            step = transition(self.guided.process, output_NCHW, x_NCHW, t_N, t_prev_N, self.eta)
            before, x_NCHW = x_NCHW, step.sample(self._noise(names, round_, f"step {s}").to(device))
            if is_density(step):
                # one object a state, so that pairs that share it share its forward pass too
                states = [
                    State(x, t, t_prev, text) for x, text in zip(before.float().cpu(), texts, strict=True)
                ]
                path.append((states, x_NCHW.float().cpu()))
        score_N = self.judge(x_NCHW, torch.zeros(len(texts), dtype=self.steps_S2.dtype), texts).float().cpu()
        if not bool(score_N.isfinite().all()):
            raise ValueError(
                f"the judge's score of {texts[int((~score_N.isfinite()).nonzero()[0])]!r} is not finite"
            )
        found: list[Encoded[EncodedStep]] = []
        for b, (i, _) in enumerate(prompts):
            members = range(b * self.candidates, (b + 1) * self.candidates)
            for one, other in itertools.combinations(members, 2):
                gap = float(score_N[one] - score_N[other])
                tally.pairs += 1
                tally.kept += gap != 0
                tally.score += float(score_N[one] + score_N[other]) / 2
                tally.gap += abs(math.tanh(gap / 2))
                if gap == 0:
                    continue
                best, worst = (one, other) if gap > 0 else (other, one)
                name = f"{round_}/{i}/{best % self.candidates}-{worst % self.candidates}"
                for s, (states, after) in enumerate(path):
                    ends = tuple(EncodedStep(states[n], after[n]) for n in (best, worst))
                    found.append(Encoded(f"{name}/{s}", ends, (Comparison(0, 1),)))
        return found

    def _noise(self, names: Sequence[str], round_: int, place: str) -> Tensor:
        return torch.stack(
            [counted_noise(self.seed, f"{place} of {n}", round_, self.shape)[1] for n in names]
        )


def check_stochastic(eta: float) -> None:
    """Raise unless steps are random: without noise candidates are equal and have no density."""
    if eta <= 0:
        raise ValueError(f"a stochastic sampler is required: eta must be above 0; given {eta:g}")


def is_density(step: GaussianTransition) -> bool:
    """Whether a step has a spread; the last one of some schedulers has none."""
    return bool((step.std_B >= SMALLEST_STD).all())
