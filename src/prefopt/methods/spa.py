"""Rounds on self-made labels, in which the least sure ones are smoothed.

The parent of `ssapo`: a first run on labelled pairs, then rounds of sampling, labelling by implicit reward and training.
The share `doubted_share` of a round's pairs with the smallest gaps counts as doubtful, and their labels are smoothed.

```text
loss = (1 - alpha z) ell(u) + alpha z ell(-u),   ell(u) = -log sigma(u),   z = 1 for doubtful pairs
```

`alpha=0` is iterative DPO on self-made labels, the baseline of both methods.

## Paper and code

The authors find the threshold in the gaps of the last batches, once training has begun, and can sharpen the logits that
confidence is read from; here it is the quantile of the round's gaps as they are when the round begins. They take the
model that begins a round as the reference of its training: `train_reference=previous`. Here the starting model stays
the reference unless that is set.

## Relations

`ssapo` has the same rounds and doubts labels through an adversary; `cdpo` smooths every label.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="spa",
    title="Spread preference annotation",
    modality="text",
    stages="self",
    paper=Paper(
        title="Spread Preference Annotation: Direct Preference Judgment for Efficient LLM Alignment",
        authors="Dongyoung Kim, Kimin Lee, Jinwoo Shin, Jaehyung Kim",
        year=2024,
        arxiv="2406.04412",
        venue="ICLR 2025",
    ),
    summary="Rounds on pairs that the policy samples and labels itself; doubtful labels are smoothed.",
    use_when=(
        "Few labelled pairs, many prompts, no judge; as the baseline of `ssapo`, or with alpha=0 as plain iterative DPO."
    ),
    failure_signs=(
        "As for `ssapo`: labels that get worse from round to round, answers that get longer. With "
        "train_reference=previous the distance to the starting model grows with every round: watch its `kl`."
    ),
    defaults={
        "beta": 0.1,
        "alpha": 0.1,
        "learning_rate": 5e-07,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
    },
    papers_config={
        "paper": "2,000 labelled pairs, 3 rounds, 2 answers at temperature 0.7, alpha 0.1, the least sure 10 %, beta 0.1",
    },
)
