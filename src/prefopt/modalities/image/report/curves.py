"""Which curves are drawn of runs on images: errors in place of log-probabilities, the guard rails of the samples, and
the collections of methods that make their own comparisons."""

from __future__ import annotations

from dataclasses import replace

from prefopt.modalities.image.report.kinds import is_judge
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

REWARD_MARGIN = replace(MARGIN, unit="reward of chosen − reward of rejected")
ERROR_REWARDS = replace(
    REWARDS, unit="scaled: error of the reference − error of the policy",
    trouble="Both fall, the rejected one faster: the margin grows because losers get worse, not because winners get better.",
)  # fmt: skip
ERROR_DISPLACEMENT = replace(
    DISPLACEMENT,
    look_for="Low. It is the share of pairs whose chosen image has a larger error now than under the reference.",
    trouble="Well above one half: both errors grow and the loser's merely grows faster. Look at the samples.",
)
TIED_IMAGES = replace(
    TIES, unit="|reward difference| on tied pairs",
    look_for="Small against the reward margin above: two equal images should stay equal.",
)  # fmt: skip
SAMPLES = [  # of any run that draws
    Curve(
        title="Reward of samples", metrics=one("reward"),
        look_for="A rise. This scores what the policy draws, not how it ranks given images.",
        trouble="Falling while accuracy, or the judge's score, rises: it ranks better and draws worse (over-optimization).",
    ),
    Curve(
        title="Change of samples", metrics=one("sample_change"), y_range=(0.0, 0.0),
        unit="root mean square distance to those before; 1 is black to white",
        look_for="Growth that slows down, and a reward that grows with it: distance is the price paid for it.",
        trouble="Climbing while the reward stands still: drift that buys nothing. Above 0.3 little of the image is left.",
    ),
    Curve(
        title="Saturation of samples", metrics=one("sample_saturation"), y_range=(0.0, 0.0),
        unit="largest − smallest channel, mean over pixels",
        look_for="About the level it had, unless colour was what you asked for.",
        trouble="A climb along with the reward: loud colours are being taken for better (reward hacking). A fall: washed out.",
    ),
]  # fmt: skip
GUARDS = (
    "Reward, change and saturation are of images drawn for the same prompts from the same noise each time"
)

OFFLINE: Groups = with_smoothness(
    (
        LEARNING,
        "Held-out comparisons meet the same noise at the same noise levels every time, so their values can be compared. "
        "Training values draw both anew for each batch: read them as a cloud.",
        [
            replace(
                LOSS,
                look_for="Held-out: a start at the dashed line, then a fall. Training hovers around it like noise, which is normal: "
                "the noise levels that were drawn decide most of its value.",
                trouble="Held-out rising while accuracy stands still: pairs that it gets wrong are pushed ever further. Exactly 0: "
                "numbers overflowed; train in bf16 or float32.",
            ),
            replace(
                ACCURACY,
                trouble="Near 100% at once: the pairs are too easy, or sharpness or source gives the better image away.",
            ),
            REWARD_MARGIN,
            ERROR_REWARDS,
            TIED_IMAGES,
        ],
    ),
    (
        STILL_GOOD,
        f"{GUARDS}; the rest is about the given images.",
        [
            SAMPLES[0],
            Curve(
                title="Denoising error of both sides", metrics=both("errors"), unit="mean squared error of a latent element", steady=True,
                look_for="Chosen falls or holds its level; rejected rises away from it.",
                trouble="Both rise: the known failure of this family. The model gets worse at both images, merely faster at the loser.",
            ),
            ERROR_DISPLACEMENT,
            *SAMPLES[1:],
        ],
    ),
)  # fmt: skip

ONLINE: Groups = with_smoothness(
    (
        "Is there something to learn from?",
        "Each round draws candidates with the present weights, and a judge compares them.",
        [
            Curve(
                title="Pairs kept", metrics=one("collect/kept"), shares=True, y_range=(0.0, 0.0),
                look_for="A share that stays about level.",
                trouble="Near zero: hardly any pair passes the threshold, and a round teaches next to nothing.",
            ),
            Curve(
                title="Gap between best and worst", metrics=one("collect/gap"), y_range=(0.0, 0.0),
                unit="0: equal to the judge; 1: far apart",
                look_for="About level.",
                trouble="Shrinking: candidates become alike, to the judge at least.",
            ),
            Curve(
                title="Judge's score of candidates", metrics=one("collect/score"),
                look_for="A rise: this is what is being optimized.",
                trouble="Rising while samples look worse, or all look the same: the judge is being exploited.",
            ),
        ],
    ),
    (
        LEARNING,
        "Values are of the pairs just collected; nothing is held out.",
        [
            Curve(
                title="Outside the clip", shares=True, y_range=(0.0, 0.1),
                metrics=[("step_dpo/clipped_chosen", "chosen", "chosen"), ("step_dpo/clipped_rejected", "rejected", "rejected"),
                         ("step_dpo/clipped_both", "both: no gradient", "tie")],
                look_for="Low. A side whose ratio to the reference has left the clip has no gradient.",
                trouble="Both near 100%: the policy drifted out of the clip, and nothing in the loss brings it back.",
            ),
            replace(
                ACCURACY,
                look_for="Above one half: relative to the reference, the policy prefers the steps that the judge prefers.",
                trouble="At one half for long: the judge's preferences are noise to it.",
            ),
            replace(
                REWARDS, unit="β · log-ratio of a step to the reference",
                trouble="Both fall: the policy leaves the reference's steps for others that nobody compared.",
            ),
            REWARD_MARGIN,
            replace(
                LOSS,
                look_for="Slightly below the value at zero margin; it moves little, since every round brings new pairs.",
            ),
        ],
    ),
    (
        STILL_GOOD,
        f"{GUARDS}; displacement is about the pairs just collected.",
        [
            *SAMPLES,
            replace(
                DISPLACEMENT,
                look_for="Low. It is the share of pairs whose chosen step is less likely now than under the reference.",
                trouble="Well above one half: winners lose ground too, losers merely lose it faster.",
            ),
        ],
    ),
)  # fmt: skip

JUDGE: Groups = with_smoothness(
    (
        LEARNING,
        "Noise levels are drawn anew for training pairs, and are the same every time for held-out ones.",
        [
            replace(
                LOSS,
                look_for="A fall of both curves from the dashed line, where both images score alike.",
                trouble="Held-out rising while training falls: overfitting.",
            ),
            replace(
                ACCURACY,
                look_for="A rise above one half. Noisy latents are hard to tell apart, so that far below 100% is normal.",
                trouble="At one half: latents are not scaled as the model expects, or labels are turned.",
            ),
            Curve(
                title="Scores of both sides", metrics=both("rewards"), unit="score",
                look_for="Chosen above rejected.", trouble="Both at the largest score: it tells nothing apart.",
            ),
            Curve(title="Score gap", metrics=one("rewards/margins"), unit="chosen − rejected", levels=[(0.0, "")],
                  look_for="Growth that slows down as pairs are learned."),
            TIED_IMAGES,
        ],
    ),
)  # fmt: skip


def groups(run: Run) -> Groups:
    """The curves that fit a run on images."""
    if is_judge(run):
        return JUDGE
    if run.online:
        return ONLINE
    course = [COURSE] if is_semi_online(run) else []
    if "displacement" in run.metrics.names():
        return [*course, *OFFLINE]
    # without a reference, rewards are the errors again, on another scale
    hidden = (ERROR_REWARDS, ERROR_DISPLACEMENT)
    shown = [(heading, note, [c for c in curves if c not in hidden]) for heading, note, curves in OFFLINE]
    return [*course, *shown]
