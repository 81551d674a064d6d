"""What page and card say of the semi-online course, whose losers are sampled while training, in any modality.

Thresholds stand on top of this file, as in `findings.py`.
"""

from __future__ import annotations

from prefopt.report.account import Measure
from prefopt.report.curves import Curve, one
from prefopt.report.facts import Figure, Finding, history
from prefopt.report.format import finite, number, percent
from prefopt.report.load import Metrics, Run

LINEAR = 0.005  # distance of sigma(-z) from one half, below which the loss is a straight line
SATURATED = 0.01  # sigma(-z) below which nothing is learned
FEW, MOST = 0.02, 0.98  # share of losers that are kept
ENOUGH = 5  # steps before which the slope says nothing: every run starts at one half

COURSE: tuple[str, str, list[Curve]] = (
    "Is there something to learn from?",
    "Winners are of the data; a loser is the worst of some samples drawn just before, and a judge vetoes those that it finds good. Values "
    "are of these samples.",
    [
        Curve(
            title="Losers kept", metrics=one("collect/kept"), shares=True, y_range=(0.0, 1.0),
            look_for="Neither 0 nor 1. A slow fall is a sign of success: the worst samples become good enough to be spared.",
            trouble="Near 0 the run is weighted fine-tuning on winners; near 1 the judge spares nothing.",
        ),
        Curve(
            title="Judge's score of samples",
            metrics=[
                ("collect/best_reward", "best", "chosen"), ("collect/reward", "mean", "a"), ("collect/rejected_reward", "worst: the loser", "rejected"),
            ],
            look_for="All three rise, towards the score of the data.",
            trouble="They rise while the reward of samples below does not: the judge is being exploited.",
        ),
        Curve(
            title="Slope of the loss", metrics=one("sopo/slope"), unit="σ(−z), mean over comparisons", y_range=(0.0, 1.0), levels=[(0.5, "start")],
            look_for="A departure from one half that stays above 0.",
            trouble="At one half throughout: the loss is a straight line, and nothing bounds how far losers are pushed. At 0: it is saturated.",
        ),
        Curve(
            title="Resemblance of winners and samples", metrics=one("collect/similarity"), unit="S, in the judge's embedding",
            look_for="About level, or a rise. Winners weigh C − S.",
        ),
    ],
)  # fmt: skip


def is_semi_online(run: Run) -> bool:
    """Whether the run sampled its losers while training."""
    names = run.metrics.names()
    return "collect/rejected_reward" in names or "sopo/slope" in names


def without_echoes(metrics: Metrics) -> Metrics:
    """Without what the loss repeats of the collection: of held-out pairs, whose losers are given, it says nothing."""
    repeats = frozenset({"sopo/kept"}) if "collect/kept" in metrics.names() else frozenset()
    silent = (
        {"collect/similarity"} if not any(metrics.points("collect/similarity", "train").values) else set()
    )
    return metrics.without(repeats | silent)


def ends(metrics: Metrics, name: str) -> tuple[float | None, float | None]:
    """Means of the first and the last tenth of the training values: single rounds differ too much."""
    values = metrics.points(name, "train").finite().values
    some = max(1, len(values) // 10)
    first = sum(values[:some]) / some if len(values) > 1 else None
    return first, (sum(values[-some:]) / some if values else None)


def findings(run: Run) -> list[Finding]:
    """What to watch out for in the course of losers."""
    return [*_slope(run), *_kept(run)]


def _slope(run: Run) -> list[Finding]:
    slopes = history(run, "sopo/slope", "train")
    if len(slopes) < ENOUGH:
        return []
    scale = str(run.of("config", "error_scale") or "")
    larger = "raise beta" if scale in ("steps", "sum") else "set error_scale=steps, or raise beta"
    if all(abs(slope - 0.5) <= LINEAR for slope in slopes):
        return [
            Finding("warn", f"The slope of the loss stayed within 0.5 ± {LINEAR:g}: over the whole run the loss was a straight line.",
                    f"Nothing bounds how far losers are pushed away, and no comparison weighs more than another: {larger}.")
        ]  # fmt: skip
    _, tail = ends(run.metrics, "sopo/slope")
    if tail is not None and tail < SATURATED:
        return [
            Finding("warn", f"The slope of the loss fell to {number(tail, 2)}: the loss is saturated, and little is learned any more.",
                    "Lower beta, or stop earlier.")
        ]  # fmt: skip
    return []


def _kept(run: Run) -> list[Finding]:
    first, now = ends(run.metrics, "collect/kept")
    if now is None:
        return []
    tau = finite(run.of("calibration", "tau"))
    at = "" if tau is None else f" (tau {number(tau, 3)})"
    if now < FEW:
        since = "from the start" if first is not None and first < FEW else "at the end"
        return [
            Finding("warn" if since == "from the start" else "note", f"The judge vetoed {percent(1 - now)} of the losers {since}{at}.",
                    "What is left is fine-tuning on winners, by their weights. " +
                    ("Raise tau, or leave it out." if since == "from the start" else "It may be done: look at the samples."))
        ]  # fmt: skip
    if now > MOST and tau is not None:
        return [
            Finding("note", f"The judge kept {percent(now)} of the losers{at}: good samples are pushed away with the bad ones.",
                    "Lower tau, or leave it out.")
        ]  # fmt: skip
    return []


def figures(run: Run) -> list[Figure]:
    """Key figures of the collection."""
    found = []
    first, now = ends(run.metrics, "collect/reward")
    if now is not None:
        matched = finite(run.of("calibration", "matched_reward"))
        note = "the judge's mean over samples drawn while training"
        note += "" if matched is None else f"; {number(matched, 3)} for the data"
        found.append(
            Figure("Judge's score", number(now, 3), "" if first is None else number(first, 3), note,
                   history=history(run, "collect/reward", "train"))
        )  # fmt: skip
    first, now = ends(run.metrics, "collect/kept")
    if now is not None:
        level = "warn" if now < FEW else ""
        found.append(
            Figure("Losers kept", percent(now), "" if first is None else percent(first), "not vetoed by the judge", level,  # type: ignore[arg-type]
                   history(run, "collect/kept", "train"))
        )  # fmt: skip
    return found


def sentence(run: Run) -> str:
    """What became of the losers, in a sentence; empty where nothing was logged."""
    first, now = ends(run.metrics, "collect/rejected_reward")
    if first is None or now is None:
        return ""
    verb = "rose" if now > first else "fell" if now < first else "stayed:"
    return f"The judge's score of its losers {verb} from {number(first, 3)} to {number(now, 3)}."


def measures() -> list[Measure]:
    """Lines of the card's table of results."""
    return [
        ("collect/reward", "train", "Judge's score of samples drawn while training", number),
        ("collect/rejected_reward", "train", "Judge's score of losers", number),
        ("collect/kept", "train", "Share of losers that the judge did not veto", percent),
        ("sopo/slope", "train", "Slope of the loss, σ(−z)", number),
    ]
