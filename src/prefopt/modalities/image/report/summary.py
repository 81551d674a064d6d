"""Key figures and sentences of runs on images."""

from __future__ import annotations

from prefopt.modalities.image.report.findings import (
    CLIPPED,
    REMOTE,
    TOO_FEW_KEPT,
    error_growth,
    growth_of_both,
    head,
    saturation_ran,
    small_percent,
    tail,
)
from prefopt.modalities.image.report.kinds import is_judge
from prefopt.report import semi_online
from prefopt.report.facts import DISPLACED, Figure, last
from prefopt.report.format import number, percent
from prefopt.report.load import Run


def scored_by(run: Run) -> str:
    """Where the reward of samples comes from, in a few words."""
    for key in ("reward", "data"):
        spec = str(run.of("config", key) or "")
        if spec.startswith("world:"):
            return "exact score of sampled images"
        if key == "reward" and spec:
            return f"{spec.split(':')[0]} score of sampled images"
    return "score of sampled images"


def preference(run: Run, better: str = "the better image") -> str:
    """What accuracy says, as the beginning of a sentence.

    Args:
        run: of the page.
        better: what is preferred in pairs that were given.
    """
    if is_judge(run):
        return "The judge scores the better image higher"
    if run.online:
        return "Relative to the reference, the policy prefers the step that the judge prefers"
    relative = " relative to the reference's" if "displacement" in run.metrics.names() else ""
    return f"By its denoising error{relative}, the policy prefers {better}"


def sentence(run: Run, sides: tuple[str, str] = ("on chosen images", "on rejected ones")) -> str:
    """What happened to the errors, or to the collection; empty where nothing of it was logged.

    Args:
        run: of the page.
        sides: what errors are of.
    """
    if run.online:
        kept, first, now = (
            tail(run.metrics, "collect/kept"),
            head(run.metrics, "collect/score"),
            tail(run.metrics, "collect/score"),
        )
        parts = []
        if first is not None and now is not None:
            verb = "rose" if now > first else "fell" if now < first else "stayed:"
            parts.append(
                f"the judge's score of its candidates {verb} from {number(first, 3)} to {number(now, 3)}"
            )
        if kept is not None:
            parts.append(f"{percent(kept)} of the pairs passed the judge's threshold at the end")
        text = ", and ".join(parts)
        return f"{text[0].upper()}{text[1:]}." if text else ""
    chosen, rejected = error_growth(run, "chosen"), error_growth(run, "rejected")
    if chosen is None or rejected is None:
        return ""
    verb, other = ("rose" if growth > 0 else "fell" for growth in (chosen, rejected))
    again = "by" if verb == other else f"{other} by"
    return (
        f"Its error {sides[0]} {verb} by {small_percent(abs(chosen))}, "
        f"that {sides[1]} {again} {small_percent(abs(rejected))}."
    )


def figures(run: Run) -> list[Figure]:
    """Key figures beside accuracy and reward, those that the run has."""
    course = semi_online.figures(run) if semi_online.is_semi_online(run) else []
    return [*course, *(_collected(run) if run.online else _errors(run)), *_guards(run)]


def _errors(run: Run) -> list[Figure]:
    metrics, split = run.metrics, run.split
    note = growth_of_both(run)
    if (moved := last(metrics, "displacement", split)) is not None:
        return [
            Figure(
                "Displacement", percent(moved), "", "of winners are denoised worse" + (f"; errors: {note}" if note else ""),
                "warn" if moved >= DISPLACED else "", metrics.points("displacement", split).finite().values,
            )
        ]  # fmt: skip
    if not note:
        return []
    before, after = metrics.ends("errors/chosen", "eval")
    history = metrics.points("errors/chosen", "eval").finite().values
    return [Figure("Denoising error", number(after), number(before), note, history=history)]


def _collected(run: Run) -> list[Figure]:
    figures: list[Figure] = []
    metrics = run.metrics
    first, score = head(metrics, "collect/score"), tail(metrics, "collect/score")
    if score is not None:
        figures.append(
            Figure(
                "Judge's score", number(score, 3), "" if first is None else number(first, 3), "mean over all candidates",
                history=metrics.points("collect/score", "train").finite().values,
            )
        )  # fmt: skip
    for name, label, note, bad in (
        ("collect/kept", "Pairs kept", "passed the judge's threshold", lambda share: share < TOO_FEW_KEPT),
        ("step_dpo/clipped_both", "Outside the clip", "pairs without gradient", lambda share: share >= CLIPPED),
    ):  # fmt: skip
        if (share := tail(metrics, name)) is not None:
            history = metrics.points(name, "train").finite().values
            figures.append(Figure(label, percent(share), "", note, "warn" if bad(share) else "", history))
    return figures


def _guards(run: Run) -> list[Figure]:
    figures: list[Figure] = []
    metrics = run.metrics
    changes = metrics.points("sample_change", "eval").finite().values
    if len(changes) > 1:
        figures.append(
            Figure(
                "Change of samples", number(changes[-1], 2), "", "root mean square; 1 is black to white",
                "warn" if changes[-1] > REMOTE else "", changes,
            )
        )  # fmt: skip
    before, after = metrics.ends("sample_saturation", "eval")
    if after is not None:
        figures.append(
            Figure(
                "Saturation of samples", number(after, 3), "" if before is None else number(before, 3),
                "0 is grey, 1 pure colour", "warn" if saturation_ran(before, after) else "",
                metrics.points("sample_saturation", "eval").finite().values,
            )
        )  # fmt: skip
    return figures
