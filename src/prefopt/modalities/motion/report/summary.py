"""Key figures and sentences of runs on motions, and what the model card measures."""

from __future__ import annotations

from prefopt.modalities.motion.report.findings import STIFF, TREMBLING
from prefopt.report import semi_online
from prefopt.report.account import Measure
from prefopt.report.facts import DISPLACED, Figure, history, last
from prefopt.report.format import number, percent
from prefopt.report.load import Run


def scored_by(run: Run) -> str:
    """Where the reward of samples comes from, in a few words."""
    reward, data, judge = (str(run.of("config", key) or "") for key in ("reward", "data", "judge"))
    spec = reward or (data if data.startswith("world:") else judge)
    if spec.startswith("world:"):
        return (
            "exact score of sampled motions"
            if not spec.endswith(":retrieval")
            else "retrieval score of sampled motions"
        )
    return f"{spec.split(':')[0]} score of sampled motions" if spec else "score of sampled motions"


def preference(run: Run) -> str:
    """What accuracy says, as the beginning of a sentence."""
    relative = " relative to the reference's" if "displacement" in run.metrics.names() else ""
    return f"By its denoising error{relative}, the policy prefers the better motion"


def figures(run: Run) -> list[Figure]:
    """Key figures beside accuracy and reward, those that the run has."""
    return [*semi_online.figures(run), *_displacement(run), *_guards(run)]


def _displacement(run: Run) -> list[Figure]:
    moved = last(run.metrics, "displacement", run.split)
    if moved is None:
        return []
    return [
        Figure("Displacement", percent(moved), "", "of winners are denoised worse", "warn" if moved >= DISPLACED else "",
               history(run, "displacement", run.split))
    ]  # fmt: skip


def _guards(run: Run) -> list[Figure]:
    found: list[Figure] = []
    changes = history(run, "sample_change")
    if len(changes) > 1:
        found.append(
            Figure("Change of samples", f"{number(changes[-1], 2)} m", "", "root mean square distance of joints", history=changes)
        )  # fmt: skip
    before, after = run.metrics.ends("sample_jerk", "eval")
    if after is not None:
        ran = bool(before) and not STIFF * (before or 0) <= after <= TREMBLING * (before or 0)
        found.append(
            Figure("Jerk of samples", number(after, 3), "" if before is None else number(before, 3), "m/s³, mean over joints and frames",
                   "warn" if ran else "", history(run, "sample_jerk"))
        )  # fmt: skip
    return found


def measures(run: Run, split: str, place: str) -> list[Measure]:
    """Lines of the card's table of results; see `Account.measures`."""
    steady = split == "eval"  # errors of training batches depend on the noise level more than on the model
    errors: list[Measure] = [
        (f"errors/{side}", split, f"Denoising error of {side} motions, {place}", number) for side in ("chosen", "rejected")
    ]  # fmt: skip
    return [
        ("reward", "eval", "Reward of sampled motions", number),
        *(errors if steady else []),
        ("loss", split, f"Loss, {place}", number),
        ("rewards/margins", split, f"Reward margin, {place}", number),
        ("displacement", split, "Displacement (share of chosen motions with more error than under the reference)", percent),
        *semi_online.measures(),
        ("sample_change", "eval", "Change of sampled motions, metres, root mean square", number),
        ("sample_jerk", "eval", "Jerk of sampled motions, m/s³", number),
    ]  # fmt: skip
