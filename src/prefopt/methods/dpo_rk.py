"""DPO-RK models three outcomes of a comparison, win, lose and tie, by the model of Rao and Kupper (1967).

DPO's Bradley-Terry likelihood knows wins only, so ties are thrown away or entered as wins of an arbitrary
side. DPO-RK gives a tie its own probability: wins push the reward margin d apart, ties pull it to 0.

```text
d = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]      alpha = log nu
P(win)  = sigma(d - alpha)
P(lose) = sigma(-d - alpha)
P(tie)  = (nu^2 - 1) sigma(d - alpha) sigma(-d - alpha)
loss    = -log P(win) for a win, -log P(tie) for a tie; soft votes mix all three
```

## How to choose nu

`nu` says how often two equally good responses tie: P(tie) = (nu - 1)/(nu + 1) at d = 0. From a tie rate p
among equals, `nu = (1 + p)/(1 - p)`; the default 3 means p = 1/2.

| tie rate of equals | nu | alpha = log nu |
|---|---|---|
| 0.2 | 1.5 | 0.41 |
| 0.5 (default) | 3 | 1.10 |
| 0.8 | 9 | 2.20 |

alpha is the half-width of a band |d| < alpha in which ties hardly pull: a wider band regularises less.
Sweep `beta` at the default nu first, then change nu with the run's final KL as guide. The share of ties in
your data is *not* p: most of your pairs are not between equals. With held-out votes and a trained policy,
`RaoKupper.fit_nu(d, outcome)` finds the nu of highest likelihood. nu = 1 makes ties impossible and is
refused where the data has any.

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

Each prompt gives about as many ties as wins by the first rule. More ties mean less drift; `tie_weight`
scales their pull without changing the data.

## What was measured

The paper's claims in miniature are in [reproductions](../reproductions.md): less drift than DPO on the wins
alone at every beta, and clearly better quality at equal drift in the log-linear world; with a small
language model the lower drift holds, the gain at equal drift over DPO without ties is inconclusive, and the
gain over DPO with ties as wins holds.

## Relations

nu = 1 without ties is DPO. Wins alone give DPO with the constant offset alpha (ODPO), so drop this method
for data without ties. TODO (arXiv 2411.02442) is this loss with alpha = 0.5 and beta = 0.01. `dpo_d` pulls
ties half as hard and keeps P(win)/P(lose) = e^d. `margin` plugs in per-token averages or another
divergence.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="dpo_rk",
    title="DPO with ties, Rao-Kupper",
    modality="any",
    paper=Paper(
        title="On Extending Direct Preference Optimization to Accommodate Ties",
        authors="Jinghong Chen, others",
        year=2024,
        arxiv="2409.17431",
        venue="NeurIPS 2025",
    ),
    summary=(
        "A tie is an outcome of its own: it pulls the margin to 0 once the margin leaves a band of "
        "half-width log nu."
    ),
    use_when=(
        "Your comparisons hold ties, annotator conflicts or near-equal scores, and you want DPO's quality "
        "with less drift from the reference. Prefer it to `dpo_d` when lower KL matters most."
    ),
    failure_signs=(
        "The policy hardly moves (`kl` near 0, `ties/scale_win` stays near its start of nu/(1+nu)): beta is "
        "too large or ties outnumber wins; lower beta, or tie_weight. `ties/scale_tie` stays at 0: all "
        "margins lie inside the band, so ties do nothing; lower nu. Without any tie in the data the loss is "
        "DPO with an offset: check the `label` column."
    ),
    papers_config={
        "all runs": "nu 3; optim rmsprop, learning_rate 5e-7, warmup_steps 150, weights in float32",
        "translation (BLOOMZ-mt-7b)": "batch 4, beta 0.1 to 1.0 (best quality at 0.3 to 0.5)",
        "TL;DR (Pythia-2.8B)": "batch 64, beta 0.05 to 0.7 (best quality at 0.3)",
        "small data sets": "leave out the 150 warm-up steps, or the run may end before the warm-up does",
    },
)
