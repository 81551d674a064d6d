"""What to watch out for in runs on control images: whether images follow their conditions, and what that costs."""

from __future__ import annotations

from prefopt.modalities.control.report.deltas import deltas, timesteps
from prefopt.modalities.control.report.fidelity import Follows, follows
from prefopt.modalities.image.report.findings import of_samples, of_training
from prefopt.report.facts import Finding, wilson
from prefopt.report.format import number, percent
from prefopt.report.load import Run

TURNED = 0.5  # sign accuracy of Delta that nobody wants: the losing condition explains the image as well
ALIKE = 0.75  # distance between images, last over first

TITLES = {
    "better": "Images follow their conditions better than before training",
    "worse": "Images follow their conditions worse than before training",
    "unclear": "Whether images follow their conditions better or worse cannot be told from chance",
}
REMEDIES = {
    "better": "Judge it by another detector than the one trained with or made pairs by: prefopt evaluate.",
    "worse": "See by which noise level Delta turned positive; lower learning_rate, stop earlier, or give the diffusion loss more "
    "weight.",
    "unclear": "Draw more (sample_prompts) before comparing runs; if the mean of Delta hardly moved, train longer or raise "
    "learning_rate.",
}


def quality(run: Run) -> list[Finding]:
    """Findings about the model rather than about the course of training."""
    found = follows(run)
    fidelity = _unread(run) if found is None else _fidelity(found)
    return [*fidelity, *of_training(run), *of_samples(run), *_variety(run), *_turned(run)]


def _fidelity(found: Follows) -> list[Finding]:
    verdict = found.verdict
    if verdict is None:
        return []
    text = f"{TITLES[verdict]} ({found.told})."
    remedy = REMEDIES[verdict]
    if found.turned:
        remedy = f"{found.measure.name[0].upper()}{found.measure.name[1:]} and agreement moved in opposite directions. {remedy}"
    return [Finding("warn" if verdict == "worse" else "note", text, remedy)]


def _unread(run: Run) -> list[Finding]:
    if not run.metrics.points("sample_change", "eval").values:
        return []
    return [
        Finding("note", "No detector read the samples: only the eye can tell whether they follow their conditions better.",
                "Give one, for example detector=canny_torch, to measure it.")
    ]  # fmt: skip


def _variety(run: Run) -> list[Finding]:
    before, after = run.metrics.ends("sample_diversity", "eval")
    if before is None or after is None or after >= ALIKE * before:
        return []
    return [
        Finding("warn", f"Images of different conditions became more alike: their mean distance fell from {number(before, 3)} to "
                f"{number(after, 3)}.",
                "Flat or washed-out images are easy to read for a detector. Compare the samples by eye; stop earlier or lower "
                "learning_rate.")
    ]  # fmt: skip


def _turned(run: Run) -> list[Finding]:
    """Noise levels at which the rejected side has the smaller error, beyond chance."""
    if run.of("timesteps", "paired") is False:
        return []
    where = [
        (t, found)
        for t, found in zip(timesteps(run), deltas(run, "after"), strict=False)
        if found.pairs and wilson(found.right, found.pairs)[1] < TURNED
    ]
    if not where:
        return []
    t, worst = min(where, key=lambda pair: pair[1].right)
    return [
        Finding(
            "warn",
            f"At {len(where)} of {len(timesteps(run))} timesteps the rejected side has the smaller error more often than not; at "
            f"{number(t)} the chosen one has it in {percent(worst.right)} of pairs.",
            "Were labels turned, or is the losing condition nearer to the image than the true one? See Delta by noise level.",
        )
    ]
