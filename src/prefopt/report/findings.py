"""What the numbers of a run say in words: key figures, one summary sentence, and what to watch out for.

Thresholds stand on top of this file. They are conventions for when to raise a hand, not results; each finding names the
number that caused it, so that a reader can disagree.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from prefopt.report.format import duration, finite, number, percent
from prefopt.report.load import Metrics, Run

DISPLACED = 0.5  # share of chosen answers that fell below the reference
TURNED_UP = 1.05  # last held-out loss over its best
GENERALIZATION_GAP = 0.15  # training accuracy minus held-out accuracy, smoothed
TOO_EASY = 0.98  # training accuracy within the first tenth of a run
AT_ZERO = 0.01  # relative distance of the loss from its value at zero margin
SPIKE = 20.0  # gradient norm over its median
LONGER = 1.5  # sampled length, last over first
REPETITIVE = 0.1  # rise of the repeated share of sampled text

Level = Literal["fail", "warn", "note"]


@dataclass(frozen=True)
class Finding:
    """Something a reader should know before trusting the run, and what to do about it."""

    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Figure:
    """One key number: its value now, before, and a word on how to read it."""

    label: str
    value: str
    before: str = ""
    note: str = ""
    level: Literal["", "warn"] = ""
    history: Sequence[float] = ()


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on decided comparisons, with the Wilson 95% interval where their number is known."""

    before: float | None
    after: float
    count: int | None
    low: float | None
    high: float | None
    held_out: bool

    @property
    def clear(self) -> bool | None:
        """Whether the change is larger than the interval; None where either is unknown."""
        if self.low is None or self.high is None or self.before is None:
            return None
        return not self.low <= self.before <= self.high

    @property
    def place(self) -> str:
        """Where it was measured: held-out or training."""
        return "held-out" if self.held_out else "training"


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a share observed on `count` independent comparisons (Wilson 1927).

    Example:
        >>> [round(x, 3) for x in wilson(0.8, 100)]
        [0.711, 0.867]
    """
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((centre + sign * half) / (1 + z * z / count) for sign in (-1, 1))
    return low, high


def accuracy(run: Run) -> Accuracy | None:
    """Accuracy before and after, held out where there is held-out data; None where it was not logged."""
    split = run.split
    before, after = run.metrics.ends("rewards/accuracies", split)
    if after is None:
        return None
    count = None
    if split == "eval":
        # a tie has no right answer, so the decided comparisons are what accuracy counts
        wins = run.of("margins", "after", "wins")
        on_held_out = "train" not in str(run.of("margins", "split") or "held-out")
        if isinstance(wins, list) and wins and on_held_out:
            count = len(wins)
        elif (examples := finite(run.of("manifest", "data", "eval_examples"))) and not run.of(
            "data", "comparisons", "ties"
        ):
            count = int(examples)
    low, high = wilson(after, count) if count and 0 <= after <= 1 else (None, None)
    return Accuracy(before, after, count, low, high, split == "eval")


def last(metrics: Metrics, name: str, split: str) -> float | None:
    """The newest finite value."""
    return metrics.ends(name, split)[1]


def steps_done(run: Run) -> float | None:
    """Optimizer steps taken: the manifest's for a finished run, else the newest that was logged."""
    planned = finite(run.of("manifest", "steps"))
    return planned if planned and run.of("manifest", "status") == "finished" else run.metrics.last_step()


def machine(run: Run) -> str:
    """The machine in a few words."""
    if gpu := run.of("manifest", "machine", "gpu"):
        return str(gpu)
    device, cores = run.of("manifest", "machine", "device"), run.of("manifest", "machine", "cores")
    return f"{number(cores)} {str(device).upper()} cores" if device and cores else ""


def at_start(run: Run, name: str, split: str) -> str:
    """When the first value of a metric was measured, in words."""
    steps = run.metrics.points(name, split).finite().steps
    return "at the start" if not steps or steps[0] <= 0 else f"at step {number(steps[0])}"


# -- key figures -----------------------------------------------------------------------------------------------


def key_figures(run: Run) -> list[Figure]:
    """The numbers for the top of the page, those that the run has."""
    figures: list[Figure] = []
    metrics, split = run.metrics, run.split

    def history(name: str, where: str = "eval") -> list[float]:
        return metrics.points(name, where).finite().values

    if acc := accuracy(run):
        note = (
            f"95% interval {percent(acc.low)} to {percent(acc.high)}, {number(acc.count)} comparisons"
            if acc.low is not None
            else "" if acc.held_out else "on the training comparisons: none are held out"
        )  # fmt: skip
        start = "" if acc.before is None else percent(acc.before)
        label = f"{acc.place.capitalize()} accuracy"
        figures.append(
            Figure(label, percent(acc.after), start, note, history=history("rewards/accuracies", split))
        )
    before, after = metrics.ends("reward", "eval")
    if after is not None:
        worse = before is not None and after < before
        figures.append(
            Figure(
                "Verifier reward", number(after, 3), "" if before is None else number(before, 3),
                "exact score of sampled answers", "warn" if worse else "", history("reward"),
            )
        )  # fmt: skip
    kl, length = last(metrics, "kl", "eval"), last(metrics, "sample_length", "eval")
    if kl is not None:
        per_token = f", {number(kl / length, 2)} a token" if length else ""
        figures.append(
            Figure(
                "KL to the reference", number(kl, 3), "", f"nats a sequence{per_token}", history=history("kl")
            )
        )
    if (moved := last(metrics, "displacement", split)) is not None:
        figures.append(
            Figure(
                "Displacement", percent(moved), "", "chosen answers below the reference",
                "warn" if moved >= DISPLACED else "", history("displacement", split),
            )
        )  # fmt: skip
    before, after = metrics.ends("sample_length", "eval")
    if after is not None:
        grown = before is not None and before > 0 and after / before >= LONGER
        figures.append(
            Figure(
                "Sampled length", number(after, 3), "" if before is None else number(before, 3), "tokens an answer",
                "warn" if grown else "", history("sample_length"),
            )
        )  # fmt: skip
    if (seconds := finite(run.of("manifest", "duration_s"))) is not None:
        steps, where = steps_done(run), machine(run)
        note = " ".join(
            x for x in (f"{number(steps)} steps" if steps else "", f"on {where}" if where else "") if x
        )
        figures.append(Figure("Time", duration(seconds), "", note))
    return figures


def summary(run: Run) -> str:
    """The run in plain sentences: what was trained on what, and what came of it. Says what was not measured."""
    title = str(
        run.of("manifest", "title")
        or run.of("manifest", "method")
        or run.of("config", "method")
        or "This run"
    )
    examples = finite(run.of("manifest", "data", "examples")) or finite(run.of("data", "examples"))
    steps = steps_done(run)
    opening = f"{title}" + (f" on {number(examples)} examples" if examples else "")
    opening += f", {number(steps)} steps" if steps else ""
    opening += ", not finished" if run.of("manifest", "status") not in (None, "finished") else ""
    parts = [opening + "."]

    acc = accuracy(run)
    if acc is None:
        parts.append("Accuracy on comparisons was not measured.")
    else:
        sentence = (
            f"The policy ranks the better answer higher in {percent(acc.after)} of {acc.place} comparisons"
        )
        if acc.before is not None:
            when = at_start(run, "rewards/accuracies", run.split)
            sentence += f", {percent(acc.before)} {when}"
        if acc.clear is False:
            sentence += "; that change is within sampling error"
        parts.append(sentence + ".")
    before, after = run.metrics.ends("reward", "eval")
    kl = last(run.metrics, "kl", "eval")
    if after is not None:
        if before is None:
            sentence = f"Its own answers score {number(after, 3)}"
        elif after == before:
            sentence = f"The score of its own answers stayed at {number(after, 3)}"
        else:
            verb = "rose" if after > before else "fell"
            sentence = f"The score of its own answers {verb} from {number(before, 3)} to {number(after, 3)}"
        parts.append(sentence + (f", at a KL of {number(kl, 3)} nats a sequence." if kl is not None else "."))
    elif kl is not None:
        parts.append(f"Its own answers moved {number(kl, 3)} nats a sequence (KL) away from the reference.")
    return " ".join(parts)


# -- what to watch out for -------------------------------------------------------------------------------------


def findings(run: Run) -> list[Finding]:
    """Everything that deserves a warning, gravest first. Empty means that none of these tests fired, no more."""
    found = [*_state(run), *_learning(run), *_quality(run)]
    order: dict[Level, int] = {"fail": 0, "warn": 1, "note": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _state(run: Run) -> list[Finding]:
    out: list[Finding] = []
    status = str(run.of("manifest", "status") or "")
    if status.startswith(("stopped", "failed", "error")):
        out.append(
            Finding("fail", f"The run did not finish: {status}.", "What follows is what it left behind.")
        )
    elif status and status != "finished":
        out.append(
            Finding("note", f"Status when this page was written: {status}.", "Numbers and curves end there.")
        )
    broken = []
    for split, name in itertools.product(("train", "eval"), ("loss", "grad_norm", "rewards/margins")):
        points = run.metrics.points(name, split)
        steps = [step for step, value in zip(*points, strict=True) if not math.isfinite(value)]
        if steps:
            shown = f"held-out {name}" if split == "eval" else name
            times = "once" if len(steps) == 1 else f"{len(steps)} times, first"
            broken.append(f"{shown} ({times} at step {number(steps[0])})")
    if broken:
        out.append(
            Finding(
                "fail",
                f"Logged values are not finite numbers: {', '.join(broken)}.",
                "Lower learning_rate, keep max_grad_norm on, train in bf16 or float32 rather than float16.",
            )
        )
    checks = run.of("manifest", "checks")
    failed = (
        [c for c in checks if isinstance(c, dict) and c.get("status") == "fail"]
        if isinstance(checks, list)
        else []
    )
    out += [
        Finding("fail", f"Start-of-run check failed: {c.get('name')}.", str(c.get("detail") or ""))
        for c in failed
    ]
    return out


def _learning(run: Run) -> list[Finding]:
    out: list[Finding] = []
    metrics, zero = run.metrics, finite(run.of("manifest", "zero_margin_loss"))
    train, held_out = metrics.points("loss", "train").finite(), metrics.points("loss", "eval").finite()
    if run.split == "train" and (train.values or accuracy(run)):
        out.append(
            Finding("note", "Nothing was held out: accuracy and loss are those of the training comparisons.",
                    "Set eval_size, or give eval_data.")
        )  # fmt: skip
    tail = train.values[-max(1, len(train.values) // 10) :]
    if zero and len(train.values) >= 5 and abs(sum(tail) / len(tail) - zero) < AT_ZERO * abs(zero):
        out.append(
            Finding("warn", f"The loss still sits at its zero-margin value ({number(zero)}): the policy hardly moved.",
                    "Raise learning_rate, train longer, or look at the data: labels may be noise.")
        )  # fmt: skip
    if (
        len(held_out.values) >= 3
        and (best := min(held_out.values)) > 0
        and held_out.values[-1] > TURNED_UP * best
    ):
        where = held_out.steps[held_out.values.index(best)]
        at_first = where == held_out.steps[0]
        out.append(
            Finding(
                "warn",
                f"Held-out loss was best at step {number(where)} ({number(best)}) and ended at {number(held_out.values[-1])}.",
                "It only ever rose: look at the data before anything else, then at learning_rate."
                if at_first
                else "The model overfits: fewer epochs, a lower learning_rate, or a checkpoint near that step.",
            )
        )
    accuracies = metrics.points("rewards/accuracies", "train").finite()
    acc = accuracy(run)
    if acc and acc.held_out and accuracies.values:
        end = accuracies.values[-max(1, len(accuracies.values) // 10) :]
        gap = sum(end) / len(end) - acc.after
        if gap > GENERALIZATION_GAP:
            out.append(
                Finding("warn", f"Training accuracy is {number(100 * gap, 2)} points above held-out accuracy.",
                        "The comparisons are being memorized: fewer epochs or more data.")
            )  # fmt: skip
    if acc and acc.clear is False:
        out.append(
            Finding("note", f"With {number(acc.count)} held-out comparisons this accuracy cannot be told from where it began.",
                    "Hold out more before comparing runs.")
        )  # fmt: skip
    early = accuracies.values[: max(3, len(accuracies.values) // 10)]
    if len(accuracies.values) >= 20 and median(early) >= TOO_EASY:
        out.append(
            Finding("note", f"Training accuracy was already {percent(median(early))} in the first tenth of the run.",
                    "The pairs may be too easy to teach anything: look for a give-away such as length or a marker.")
        )  # fmt: skip
    norms = metrics.points("grad_norm", "train").finite()
    if len(norms.values) >= 10 and (usual := median(norms.values)) > 0 and max(norms.values) > SPIKE * usual:
        where = norms.steps[norms.values.index(max(norms.values))]
        out.append(
            Finding("note", f"The gradient norm peaked at {number(max(norms.values), 3)} at step {number(where)}; its median is {number(usual, 3)}.",
                    "One odd row can do this; dropped.jsonl and the data report are the place to look.")
        )  # fmt: skip
    return out


def _quality(run: Run) -> list[Finding]:
    out: list[Finding] = []
    metrics = run.metrics
    before, after = metrics.ends("reward", "eval")
    rose = before is not None and after is not None and after > before
    moved = last(metrics, "displacement", run.split)
    if moved is not None and moved >= DISPLACED:
        method = str(run.of("config", "method") or run.of("manifest", "method") or "dpo")
        consolation = (
            "Sampled answers still score higher than before, so it may be harmless here. " if rose else ""
        )
        out.append(
            Finding(
                "warn", f"Chosen answers became less likely than under the reference (displacement {percent(moved)}).",
                f"{consolation}If answers get worse: lower learning_rate, add a supervised term (method={method}+0.2*sft), or try bpo or compo.",
            )
        )  # fmt: skip
    if before is not None and after is not None and after < before:
        out.append(
            Finding("warn", f"Sampled answers score lower than before training: {number(before, 3)} to {number(after, 3)}.",
                    "Ranking given pairs better while writing worse is over-optimization: raise beta, lower learning_rate, stop earlier.")
        )  # fmt: skip
    before, after = metrics.ends("sample_length", "eval")
    if before and after is not None and after / before >= LONGER:
        gap = finite(run.of("data", "length_gap", "mean"))
        cause = (
            f" Chosen answers in the data are {number(gap, 2)} longer on average." if gap and gap > 0 else ""
        )
        out.append(
            Finding("warn", f"Sampled answers grew from {number(before, 3)} to {number(after, 3)} tokens.{cause}",
                    "Balance lengths in the data, or use a length-normalised margin.")
        )  # fmt: skip
    before, after = metrics.ends("sample_repetition", "eval")
    if before is not None and after is not None and after - before >= REPETITIVE:
        out.append(
            Finding("warn", f"Sampled answers repeat themselves more: {percent(before)} to {percent(after)}.",
                    "A sign of drifting too far: raise beta, lower learning_rate, stop earlier.")
        )  # fmt: skip
    return out
