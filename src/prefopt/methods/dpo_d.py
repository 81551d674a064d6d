"""DPO-D models three outcomes of a comparison, win, lose and tie, by the model of Davidson (1970).

Like `dpo_rk` it gives a tie its own probability, here tied to the geometric mean of winning and losing:
wins push the reward margin d apart, ties pull it to 0.

```text
d = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]
P(win)  = 1 / (1 + e^-d + 2 nu e^(-d/2))
P(lose) = P(win) at -d
P(tie)  = 2 nu sqrt(P(win) P(lose))
loss    = -log P(win) for a win, -log P(tie) for a tie; soft votes mix all three
```

P(win)/P(lose) = e^d, as in Bradley-Terry (Luce's choice axiom), whatever nu is: ties do not change what d
means.

## How to choose nu

`nu` says how often two equally good responses tie: P(tie) = nu/(1 + nu) at d = 0. From a tie rate p among
equals, `nu = p/(1 - p)`; the default 1 means p = 1/2.

| tie rate of equals | nu |
|---|---|
| 0.2 | 0.25 |
| 0.5 (default) | 1 |
| 0.8 | 4 |

Sweep `beta` at the default nu first, then change nu with the run's final KL as guide: a larger nu flattens
the pull of ties near d = 0, and so regularises less. The share of ties in your data is *not* p, since most
of your pairs are not between equals. With held-out votes and a trained policy, `Davidson.fit_nu(d,
outcome)` finds the nu of highest likelihood. nu = 0 makes ties impossible and is refused where the data has
any.

## Where ties come from

Mark them: `"label": "tie"`, or `"votes": [7, 1, 2]` for win, lose, tie counts ([data](../data.md)). If your
data set has scored candidates, `prefopt build` finds them:

```bash
prefopt build extremes-and-closest candidates.jsonl -o pairs.jsonl  # best beats worst, the two nearest tie
prefopt build conflicting-judges candidates.jsonl -o pairs.jsonl    # pairs whose order the judges dispute tie
prefopt build all-correct candidates.jsonl -o pairs.jsonl           # two right answers tie where all are right
prefopt build smallest-margin pairs.jsonl -o with_ties.jsonl        # the smallest margins of a trained DPO policy tie
prefopt build threshold candidates.jsonl --eps 0.05 -o pairs.jsonl  # score differences of at most eps tie
```

## What was measured

The paper's claims in miniature are in [reproductions](../reproductions.md): better quality than DPO at
equal drift holds in the log-linear world and with a small language model. Lower drift at equal beta holds
for the language model; in the log-linear world it is inconclusive at small beta, where Davidson's weak pull
leaves DPO's KL. The narrower spread of margins on held-out ties did not show.

## Relations

nu = 0 without ties is DPO. The pull of a tie is at most half of Rao-Kupper's (`dpo_rk`), so its runs drift
further at equal beta; compare the two at equal KL. `margin` plugs in per-token averages or another
divergence.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="dpo_d",
    title="DPO with ties, Davidson",
    modality="any",
    paper=Paper(
        title="On Extending Direct Preference Optimization to Accommodate Ties",
        authors="Jinghong Chen, others",
        year=2024,
        arxiv="2409.17431",
        venue="NeurIPS 2025",
    ),
    summary=(
        "A tie is an outcome of its own, with probability 2 nu sqrt(P(win) P(lose)); it pulls the margin "
        "gently to 0."
    ),
    use_when=(
        "Your comparisons hold ties, annotator conflicts or near-equal scores, and quality matters more than "
        "the lowest drift; or the margin must keep Bradley-Terry's meaning, P(win)/P(lose) = e^d."
    ),
    failure_signs=(
        "The policy hardly moves (`kl` near 0): beta is too large or ties outnumber wins; lower beta, or "
        "tie_weight. It drifts as far as DPO: the pull is weak at small beta; raise beta, lower nu, or take "
        "dpo_rk. Without any tie in the data check the `label` column: wins are then pushed further than by "
        "DPO, and nothing holds them."
    ),
    papers_config={
        "all runs": "nu 1; optim rmsprop, learning_rate 5e-7, warmup_steps 150, weights in float32",
        "translation (BLOOMZ-mt-7b)": "batch 4, beta 0.2 to 1.0 (best quality at 0.4 to 0.8)",
        "TL;DR (Pythia-2.8B)": "batch 64, beta 0.1 to 0.7 (best quality at 0.1)",
        "small data sets": "leave out the 150 warm-up steps, or the run may end before the warm-up does",
    },
)
