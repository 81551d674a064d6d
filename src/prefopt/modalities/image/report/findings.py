"""What to watch out for in runs on images: errors that grow, clips and thresholds that leave nothing, reward hacking.

Thresholds stand on top of this file, as in `findings.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefopt.modalities.image.report.kinds import is_judge
from prefopt.report import semi_online
from prefopt.report.facts import DISPLACED, Finding, last
from prefopt.report.format import finite, number, percent
from prefopt.report.load import Metrics, Run

WORSE = 0.01  # relative growth of the chosen images' error, where there is no reference to tell
CLIPPED = 0.5  # share of pairs without gradient
TOO_FEW_KEPT = 0.01  # share of candidates' pairs that pass the judge's threshold
ALIKE = 0.25  # gap between best and worst candidate, last over first
VIVID, PALE = 1.5, 0.5  # saturation of samples, last over first
VISIBLE_SATURATION = 0.05  # smaller changes are not worth a word
REMOTE = 0.3  # RMS distance of samples to those before: about that of two unrelated images
GREY_LEVEL = 1 / 255  # RMS distance below which nobody sees a difference


def tail(metrics: Metrics, name: str, split: str = "train") -> float | None:
    """Mean of the last tenth of the finite values: rounds and batches differ too much to trust the last one."""
    values = metrics.points(name, split).finite().values
    end = values[-max(1, len(values) // 10) :]
    return sum(end) / len(end) if end else None


def head(metrics: Metrics, name: str, split: str = "train") -> float | None:
    """Mean of the first tenth of the finite values; None where that is all there is."""
    values = metrics.points(name, split).finite().values
    start = values[: max(1, len(values) // 10)]
    return sum(start) / len(start) if len(values) > 1 else None


def error_growth(run: Run, side: str) -> float | None:
    """Growth of a side's held-out denoising error over the run, relative; training values are mostly noise."""
    before, after = run.metrics.ends(f"errors/{side}", "eval")
    return None if not before or after is None else after / before - 1


def small_percent(share: float, sign: bool = False) -> str:
    """A share as a percentage with two significant figures: the whole effect is often 0.1%."""
    figures = ".0f" if abs(share) >= 0.1 else ".2g"
    return f"{100 * share:{'+' if sign else ''}{figures}}%".replace("-", "−")


def growth_of_both(run: Run) -> str:
    """Both sides' error growth in words, those that are known."""
    growth = [(side, error_growth(run, side)) for side in ("chosen", "rejected")]
    return ", ".join(f"{side} {small_percent(g, sign=True)}" for side, g in growth if g is not None)


def saturation_ran(before: float | None, after: float | None) -> bool:
    """Whether colourfulness of samples left the range that it had."""
    if before is None or after is None or abs(after - before) < VISIBLE_SATURATION:
        return False
    return after > VIVID * before or after < PALE * before


def quality(run: Run) -> list[Finding]:
    """Findings about the model rather than about the course of training."""
    if is_judge(run):
        return []
    return [*semi_online.findings(run), *of_training(run), *of_samples(run), *_unscored(run)]


def of_training(run: Run) -> list[Finding]:
    """What the errors, or the collections, say."""
    return _collection(run) if run.online else _errors(run)


def _errors(run: Run) -> list[Finding]:
    metrics, split = run.metrics, run.split
    method = str(run.of("config", "method") or run.of("manifest", "method") or "")
    change = growth_of_both(run)
    moved = last(metrics, "displacement", split)
    if moved is None:
        if (error_growth(run, "chosen") or 0.0) > WORSE:
            return [
                Finding("warn", f"The denoising error of chosen images rose ({change}).",
                        "Telling images apart wins over drawing the better one: lower learning_rate (or beta), or stop earlier.")
            ]  # fmt: skip
        return []
    if moved < DISPLACED:
        return []
    both = all((last(metrics, f"rewards/{side}", split) or 0.0) < 0 for side in ("chosen", "rejected"))
    if both and split == "eval":
        margin = last(metrics, "rewards/margins", split) or 0.0
        how = (
            ": the margin grows only because losers get worse faster"
            if margin > 0
            else ", those of winners no slower than those of losers"
        )
        numbers = f"; errors: {change}" if change else ""
        text = (
            f"Both denoising errors rose above the reference's{how} (displacement {percent(moved)}{numbers})."
        )
    else:
        text = f"Chosen images have a larger error than under the reference in {percent(moved)} of comparisons (displacement)."
    rose = _rose(run)
    consolation = "Samples still score higher than before, so it may be harmless here. " if rose else ""
    return [Finding("warn", text, f"{consolation}Look at the samples. {_remedy(run, method)}")]


def _remedy(run: Run, method: str) -> str:
    steps = "If they get worse: lower learning_rate or raise beta"
    if "sft" in method:
        return f"{steps}, or give the sft term more weight."
    unpaired = any(finite(run.of("data", "comparisons", kind)) for kind in ("desirable", "undesirable"))
    beta = finite(run.of("config", "beta"))
    if unpaired or not method or not beta:
        return f"{steps}."
    # on the scale of rewards the error of the winner weighs beta; a tenth holds it without ruling
    return f"{steps}, or add the winner's own error (method={method}+{beta / 10:g}*sft)."


def _rose(run: Run) -> bool:
    before, after = run.metrics.ends("reward", "eval")
    return before is not None and after is not None and after > before


def _collection(run: Run) -> list[Finding]:
    out: list[Finding] = []
    metrics = run.metrics
    kept, clipped = tail(metrics, "collect/kept"), tail(metrics, "step_dpo/clipped_both")
    if kept is not None and kept < TOO_FEW_KEPT:
        out.append(
            Finding("warn", f"Only {percent(kept, 2)} of the candidates' pairs passed the judge's threshold: there is hardly anything to learn from.",
                    "Lower threshold, or keep a fixed share of all pairs (threshold_rule=quantile).")
        )  # fmt: skip
    if clipped is not None and clipped >= CLIPPED:
        out.append(
            Finding("warn", f"{percent(clipped)} of the pairs have both sides outside the clip and teach nothing.",
                    "The policy drifted away from the reference, and nothing in the loss brings it back: lower learning_rate and start again.")
        )  # fmt: skip
    moved = tail(metrics, "displacement")
    if moved is not None and moved >= DISPLACED:
        out.append(
            Finding("warn", f"Chosen steps became less likely than under the reference (displacement {percent(moved)}).",
                    "Winners lose ground too, losers merely faster. Look at the samples; if they get worse, lower learning_rate.")
        )  # fmt: skip
    wide, narrow = head(metrics, "collect/gap"), tail(metrics, "collect/gap")
    if wide and narrow is not None and narrow < ALIKE * wide:
        out.append(
            Finding("note", f"The judge's gap between the best and the worst candidate shrank from {number(wide, 3)} to {number(narrow, 3)}.",
                    "Either they are all good now, or they all look the same: the samples tell which.")
        )  # fmt: skip
    return out


def of_samples(run: Run) -> list[Finding]:
    """What reward, colours and distance of the samples say."""
    out: list[Finding] = []
    metrics = run.metrics
    before, after = metrics.ends("reward", "eval")
    if before is not None and after is not None and after < before:
        liked_0, liked = head(metrics, "collect/score"), tail(metrics, "collect/score")
        cause = (
            "The judge that trains it likes its candidates more, so that the two disagree: look at what the judge is after."
            if liked_0 is not None and liked is not None and liked > liked_0
            else "Ranking given images better while drawing worse is over-optimization: raise beta, lower learning_rate, stop earlier."
        )
        out.append(
            Finding("warn", f"Samples score lower than before training: {number(before, 3)} to {number(after, 3)}.", cause)
        )  # fmt: skip
    vivid_0, vivid = metrics.ends("sample_saturation", "eval")
    if vivid_0 is not None and vivid is not None and saturation_ran(vivid_0, vivid):
        risen = vivid > vivid_0
        fooled = " while their reward rose" if risen and _rose(run) else ""
        out.append(
            Finding(
                "warn",
                f"Samples became {'far more colourful' if risen else 'pale'}{fooled}: mean saturation {number(vivid_0, 3)} to {number(vivid, 3)}.",
                ("Loud colours are an easy way to please a scorer (reward hacking). " if risen else "")
                + "Compare the samples by eye; stop earlier, lower learning_rate, or raise beta.",
            )
        )
    return out + _distance(metrics.points("sample_change", "eval").finite().values)


def _unscored(run: Run) -> list[Finding]:
    if (
        not run.metrics.points("sample_change", "eval").values
        or run.metrics.ends("reward", "eval")[1] is not None
    ):
        return []
    return [
        Finding("note", "Samples were not scored: only the eye can tell whether they got better.",
                "Give a scorer, for example reward=pickscore:DIR, to measure what the model draws and not only how it ranks.")
    ]  # fmt: skip


def _distance(changes: Sequence[float]) -> list[Finding]:
    if len(changes) < 2:
        return []
    if changes[-1] > REMOTE:
        return [
            Finding("warn", f"Samples have little in common with those before training (root mean square distance {number(changes[-1], 3)}).",
                    "Unless that was the aim: lower learning_rate, raise beta, or stop earlier.")
        ]  # fmt: skip
    if changes[-1] < GREY_LEVEL:
        return [
            Finding("note", f"Samples changed by less than the eye can see (root mean square distance {number(changes[-1], 2)}, below one of 255 grey levels).",
                    "Train longer, or raise learning_rate.")
        ]  # fmt: skip
    return []
