"""Fine-tuning on the winner: a baseline, and a regularizer inside a sum.

```text
loss = -log pi(y_w) / |y_w|
```

Alone it also takes single samples (`completion` and `label`, or an image and its condition); those labelled bad are left out.

`dpo+sft` is RPO (the paper cited): DPO that keeps the winner likely. `0.8*dpo+0.2*bco_pair+sft` is MPO's
mixture. `average=batch` gives every token the same weight, as TRL does, in place of every winner.

## Relations

`orpo`, `contrastive_po` and `slic` contain this term. Losers are not looked at.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="sft",
    title="Supervised fine-tuning on the winner",
    modality="any",
    paper=Paper(
        title="Iterative Reasoning Preference Optimization",
        authors="Richard Yuanzhe Pang, Weizhe Yuan, Kyunghyun Cho, He He, Sainbayar Sukhbaatar, Jason Weston",
        year=2024,
        arxiv="2404.19733",
        venue="NeurIPS 2024",
    ),
    summary="Negative log-likelihood of the winner; usually one term of a sum such as dpo+sft.",
    use_when=(
        "As a stage before preference training, as a baseline, or summed with another method where "
        "`displacement` is high."
    ),
    failure_signs=(
        "As a term: margins stop growing, so its weight is too large (write dpo+0.1*sft). Alone: both sides' "
        "log-probabilities rise alike, which is expected; preferences are not learnt. Overfits: fewer "
        "epochs."
    ),
    papers_config={
        "RPO": "dpo+sft with beta 0.1",
    },
)
