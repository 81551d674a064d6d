"""Which curves are drawn of runs on motions: the course of losers, errors in place of log-probabilities, samples."""

from __future__ import annotations

from dataclasses import replace

from prefopt.report.curves import (
    ACCURACY,
    DISPLACEMENT,
    LEARNING,
    LOSS,
    MARGIN,
    REWARDS,
    STILL_GOOD,
    TIES,
    Curve,
    Groups,
    both,
    one,
    with_smoothness,
)
from prefopt.report.load import Run
from prefopt.report.semi_online import COURSE, is_semi_online

MARGIN_UNIT = "reward of chosen − reward of rejected"
ERROR_REWARDS = replace(
    REWARDS, unit="scaled: error of the reference − error of the policy",
    trouble="Both fall, the rejected one faster: the margin grows because losers get worse, not because winners get better.",
)  # fmt: skip
ERROR_DISPLACEMENT = replace(
    DISPLACEMENT,
    look_for="Low. It is the share of comparisons whose chosen motion has a larger error now than under the reference.",
    trouble="Well above one half: winners lose ground, too. Look at the samples.",
)
SAMPLES = [
    Curve(
        title="Reward of samples", metrics=one("reward"),
        look_for="A rise. This scores what the policy draws, not how it ranks given motions.",
        trouble="Falling while accuracy, or the judge's score, rises: it ranks better and draws worse (over-optimization).",
    ),
    Curve(
        title="Change of samples", metrics=one("sample_change"), y_range=(0.0, 0.0),
        unit="metres, root mean square distance of joints to those before",
        look_for="Growth that slows down, and a reward that grows with it: distance is the price paid for it. Most of it is the way walked.",
        trouble="Climbing while the reward stands still: drift that buys nothing.",
    ),
    Curve(
        title="Jerk of samples", metrics=one("sample_jerk"), y_range=(0.0, 0.0), unit="m/s³, mean over joints and frames",
        look_for="About the level it had.",
        trouble="A climb: figures tremble. A fall to little: they hardly move any more, which some judges like.",
    ),
]  # fmt: skip


def groups(run: Run) -> Groups:
    """The curves that fit a run."""
    compared = "displacement" in run.metrics.names()
    learning = [
        replace(
            LOSS,
            look_for="Held-out: a start at the dashed line, then a fall. Training hovers around it like noise, which is normal: the "
            "noise levels that were drawn decide most of its value.",
            trouble="Held-out rising while accuracy stands still: what it gets wrong is pushed ever further.",
        ),
        replace(
            ACCURACY,
            trouble="Near 100% at once: the comparisons are too easy, or smoothness or source gives the better motion away.",
        ),
        replace(MARGIN, unit=MARGIN_UNIT),
        *([ERROR_REWARDS] if compared else []),
        replace(TIES, unit="|reward difference| on tied pairs"),
    ]
    good = [
        SAMPLES[0],
        Curve(
            title="Denoising error of both sides", metrics=both("errors"), unit="on the scale of the loss", steady=True,
            look_for="Chosen falls or holds its level; rejected rises away from it.",
            trouble="Both rise: the known failure of this family. The model gets worse at both motions, merely faster at the loser.",
        ),
        *([ERROR_DISPLACEMENT] if compared else []),
        *SAMPLES[1:],
    ]  # fmt: skip
    given = "Held-out comparisons are given ones, and meet the same noise every time" if is_semi_online(run) else (
        "Held-out comparisons meet the same noise at the same noise levels every time, so their values can be compared"
    )  # fmt: skip
    parts = [
        (
            LEARNING,
            f"{given}. Training values draw both anew for each batch: read them as a cloud.",
            learning,
        ),
        (
            STILL_GOOD,
            "Reward, change and jerk are of motions drawn for the same prompts from the same noise each time; the rest is about the "
            "given motions.",
            good,
        ),
    ]
    return with_smoothness(*([COURSE] if is_semi_online(run) else []), *parts)
