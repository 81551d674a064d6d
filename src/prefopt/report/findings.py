"""What to watch out for in a run, in words.

Thresholds stand on top of this file. They are conventions for when to raise a hand, not results; each finding names the
number that caused it, so that a reader can disagree. What is asked of one modality alone is in its own folder.
"""

from __future__ import annotations

import itertools
import math
from statistics import median

from prefopt.report.account import Account
from prefopt.report.facts import Finding, Level, accuracy
from prefopt.report.format import finite, number, percent
from prefopt.report.load import Run
from prefopt.report.stages import same_loss_since

TURNED_UP = 1.05  # last held-out loss over its best
GENERALIZATION_GAP = 0.15  # training accuracy minus held-out accuracy, smoothed
TOO_EASY = 0.98  # training accuracy within the first tenth of a run
AT_ZERO = 0.01  # relative distance of the loss from its value at zero margin
SPIKE = 20.0  # gradient norm over its median


def findings(run: Run, account: Account) -> list[Finding]:
    """Everything that deserves a warning, gravest first. Empty means that none of these tests fired, no more."""
    found = [
        *_state(run),
        *_loss(run, account),
        *_accuracy(run, account),
        *_gradient(run),
        *account.quality(run),
    ]
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
    early = run.of("manifest", "stopped_early")
    if isinstance(early, dict):
        planned = number(float(run.of("manifest", "steps") or 0))
        out.append(
            Finding(
                "note",
                f"The run ended after step {early.get('step')} of {planned}: {early.get('reason')}.",
                "It was to: a callback or early stopping asked for it.",
            )
        )
    if (best := finite(run.of("manifest", "best_step"))) is not None:
        metric = run.of("config", "metric_for_best_model")
        out.append(
            Finding(
                "note",
                f"The saved model is that of step {number(best)}, the best evaluation by {metric}.",
                "The last point of each held-out curve is that model; the one before it is the last step's.",
            )
        )
    broken = []
    for split, name in itertools.product(("train", "eval"), ("loss", "grad_norm", "rewards/margins")):
        points = run.metrics.points(name, split)
        steps = [step for step, value in zip(*points, strict=True) if not math.isfinite(value)]
        if steps:
            shown = f"{run.place} {name}" if split == "eval" else name
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


def _loss(run: Run, account: Account) -> list[Finding]:
    out: list[Finding] = []
    metrics, zero = run.metrics, finite(run.of("manifest", "zero_margin_loss"))
    train = metrics.points("loss", "train").finite()
    held_out = metrics.points("loss", "eval").finite().since(same_loss_since(run))
    if run.not_held_out or (run.split == "train" and not run.online and (train.values or accuracy(run))):
        measured = (
            "samples are drawn on training prompts"
            if run.online
            else "accuracy and loss are those of the training comparisons"
        )
        told = run.not_held_out or f"nothing was held out: {measured}"
        out.append(
            Finding("note", f"{told[0].upper()}{told[1:]}.",
                    f"Set eval_size, or give eval_data with other {'prompts' if run.online else 'rows'}.")
        )  # fmt: skip
    tail = train.values[-max(1, len(train.values) // 10) :] if len(train.values) >= 5 else []
    if account.noisy_loss:  # and a step's loss stays there by design
        tail = [] if run.online or len(held_out.values) < 2 else held_out.values[-1:]
    if zero and tail and abs(sum(tail) / len(tail) - zero) < AT_ZERO * abs(zero):
        out.append(
            Finding("warn", f"The loss still sits at its zero-margin value ({number(zero)}): the policy hardly moved.",
                    "Raise learning_rate, train longer, or look at the data: labels may be noise.")
        )  # fmt: skip
    if (
        run.not_held_out is None
        and len(held_out.values) >= 3
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
    return out


def _accuracy(run: Run, account: Account) -> list[Finding]:
    out: list[Finding] = []
    accuracies = run.metrics.points("rewards/accuracies", "train").finite()
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
    if len(accuracies.values) >= 20 and median(early) >= TOO_EASY and not run.online:
        out.append(
            Finding("note", f"Training accuracy was already {percent(median(early))} in the first tenth of the run.",
                    f"The pairs may be too easy to teach anything: look for a give-away such as {account.giveaway}.")
        )  # fmt: skip
    return out


def _gradient(run: Run) -> list[Finding]:
    norms = run.metrics.points("grad_norm", "train").finite()
    if len(norms.values) < 10 or (usual := median(norms.values)) <= 0 or max(norms.values) <= SPIKE * usual:
        return []
    where = norms.steps[norms.values.index(max(norms.values))]
    return [
        Finding("note", f"The gradient norm peaked at {number(max(norms.values), 3)} at step {number(where)}; its median is {number(usual, 3)}.",
                "One odd round of candidates can do this; the judge's scores are the place to look." if run.online
                else "One odd row can do this; dropped.jsonl and the data report are the place to look.")
    ]  # fmt: skip
