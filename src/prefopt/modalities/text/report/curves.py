"""Which curves are drawn of runs on text, under which heading, and how to read them."""

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

ORACLE = (
    "Is the comparison oracle heard?",
    "Of steps that ask which random moves help. They have no gradient; each point is about the pairs since the last log line.",
    [
        Curve(
            title="Moves that helped", metrics=one("compo/success_rate"), shares=True, y_range=(0.0, 0.5),
            look_for="Between 2% and 48%, above the gate for most pairs. Of very similar responses few moves can help.",
            trouble="Near 0: moves are too large. Near one half: too small, and rounding answers.",
        ),
        Curve(
            title="Steps taken", metrics=one("compo/stepped"), shares=True, y_range=(0.0, 1.0),
            look_for="Well above 0.",
            trouble="Near 0: the gate is shut, so nothing is learned. Lower gate or radius.",
        ),
        Curve(
            title="Change of the pair by its own step", unit="nats, summed over the answer", levels=[(0.0, "no change")],
            metrics=[(f"compo/delta_logp_{side}", side, side) for side in ("chosen", "rejected")],
            look_for="Chosen above zero, rejected below.",
            trouble="Both on one side: the vote is mostly noise. More perturbations, or a smaller step_size.",
        ),
        Curve(
            title="Length of steps", metrics=one("compo/update_norm"), y_range=(0.0, 0.0),
            look_for="At most step_size times the share of moves that helped.",
        ),
    ],
)  # fmt: skip

TEXT_GROUPS: Groups = with_smoothness(
    (
        LEARNING,
        "Training values are those of the batches of each log line; held-out values are over all held-out comparisons.",
        [
            replace(
                LOSS,
                look_for="A start at the dashed line, where policy and reference are equal, then a fall of both curves.",
                trouble="Flat on the dashed line: nothing is learned. Held-out rising while training falls: overfitting.",
            ),
            replace(ACCURACY, trouble="Near 100% at once: the pairs are too easy, or length gives the answer away."),
            replace(MARGIN, unit="β · (log-ratio chosen − rejected)"),
            replace(
                REWARDS, unit="β · log-ratio to the reference",
                trouble="Both fall: the margin grows although the chosen answer becomes less likely (displacement).",
            ),
            Curve(
                title="Length gap", metrics=one("length_gap"), unit="tokens, chosen − rejected", levels=[(0.0, "equal length")],
                look_for="Noise around the level of the data; it does not depend on the policy.",
                trouble="Far from zero: a policy that learns to write longer, or shorter, can look as if it had learned more.",
            ),
            replace(
                TIES, unit="|β · (log-ratio difference)| on tied pairs",
                look_for="Small against the reward margin above: two equal answers should stay equal.",
            ),
        ],
    ),
    ORACLE,
    (
        STILL_GOOD,
        "Reward, KL, length and repetition are those of the policy's own answers to fixed prompts; the rest is about the given comparisons.",
        [
            Curve(
                title="Verifier reward", metrics=one("reward"),
                look_for="A rise. This scores what the policy writes, not how it ranks given answers.",
                trouble="Falling while accuracy rises: it ranks better and writes worse (over-optimization).",
            ),
            Curve(
                title="KL to the reference", metrics=one("kl"), unit="nats a sequence", y_range=(0.0, 0.0),
                look_for="Slow growth, and a reward that grows with it: KL is the price paid for it.",
                trouble="Climbing while the reward stands still: drift that buys nothing.",
            ),
            replace(
                DISPLACEMENT, levels=[(0.5, "half of the chosen answers")],
                look_for="Low. It is the share of pairs whose chosen answer became less likely than under the reference.",
                trouble="Well above one half: probability leaves both answers for something nobody asked for.",
            ),
            Curve(
                title="Log-probabilities of both sides", metrics=both("logps"), unit="nats, summed over the answer",
                look_for="Rejected falls away from chosen, which holds its level.",
                trouble="Both plunge together: see displacement.",
            ),
            Curve(
                title="Length", metrics=one("sample_length"), unit="tokens an answer", y_range=(0.0, 0.0),
                look_for="About the length it had, unless length was what you asked for.",
                trouble="Steady growth: longer is being taken for better.",
            ),
            Curve(
                title="Repetition", metrics=one("sample_repetition"), shares=True, y_range=(0.0, 0.1),
                look_for="As low as at the start.",
                trouble="A rise: text degenerates into loops.",
            ),
        ],
    ),
)  # fmt: skip
