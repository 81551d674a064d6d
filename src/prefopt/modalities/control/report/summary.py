"""Key figures and sentences of runs on control images."""

from __future__ import annotations

from prefopt.modalities.control.report.fidelity import AGREEMENT, follows
from prefopt.modalities.control.report.first import compares_conditions
from prefopt.modalities.image.report import summary
from prefopt.report.facts import Figure, history
from prefopt.report.format import number
from prefopt.report.load import Run

VERBS = {"better": "follow their conditions better", "worse": "follow their conditions worse"}


def preference(run: Run) -> str:
    """What accuracy says, as the beginning of a sentence."""
    return summary.preference(run, "the true condition" if compares_conditions(run) else "the better image")


def sentence(run: Run) -> str:
    """Whether images follow their conditions, and what happened to the errors."""
    return " ".join(part for part in (_fidelity(run), _errors(run)) if part)


def _errors(run: Run) -> str:
    if compares_conditions(run):
        return summary.sentence(run, ("under true conditions", "under losing ones"))
    return summary.sentence(run)


def _fidelity(run: Run) -> str:
    found = follows(run)
    if found is None:
        return ""
    if found.verdict is None:
        start = "" if found.before is None else f"{number(found.before, 3)} → "
        return (
            f"Its images follow their conditions with {found.measure.name} {start}{number(found.after, 3)}."
        )
    if found.verdict == "unclear":
        return f"How closely its images follow their conditions did not change beyond noise ({found.told})."
    return f"Its images {VERBS[found.verdict]} ({found.told})."


def figures(run: Run) -> list[Figure]:
    """Key figures beside accuracy and reward, those that the run has."""
    return [*_follows(run), *summary.figures(run)]


def _follows(run: Run) -> list[Figure]:
    found = follows(run)
    if found is None:
        return []
    detector = run.of("fidelity", "detector")
    which = "higher" if found.measure.higher_is_better else "lower"
    note = f"{which} is better" + (f"; read by {detector}" if detector else "")
    before = "" if found.before is None else number(found.before, 3)
    level = "warn" if found.verdict == "worse" else ""
    title = f"{found.measure.name[0].upper()}{found.measure.name[1:]} of samples"
    out = [Figure(title, number(found.after, 3), before, note, level, history(run, found.metric))]  # type: ignore[arg-type]
    first, last = run.metrics.ends(AGREEMENT, "eval")
    if last is not None:
        images = f" of {found.images} images" if found.images else ""
        start = "" if first is None else number(first, 3)
        out.append(
            Figure("Agreement of samples", number(last, 3), start, f"mean{images}; 1 is whole agreement",
                   level, history(run, AGREEMENT))  # type: ignore[arg-type]
        )  # fmt: skip
    return out
