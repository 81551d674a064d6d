"""Triple preference optimization learns a gold answer while it tells two others apart.

```text
loss = -log sigma(beta [log pi(y_w) - log pi(y_l)]) + tpo_alpha NLL(y_gold)        NLL: mean over its tokens
loss=tpo-l:  -log sigma(beta [log pi(y_w)/|y_w| - log pi(y_l)/|y_l|] - tpo_l_gamma) + tpo_alpha NLL(y_gold)
```

Rows have a third answer in the column `reference`, the paper's gold response: the best one known, while `chosen` and
`rejected` may both be a model's own. There is no reference model. One run takes the place of fine-tuning on good answers
followed by preference training. With `tpo_alpha=0` the column is not read.

`loss=hinge` and `loss=ipo` are those of `contrastive_po`.

## Relations

Where the gold answer is the chosen one, `contrastive_po`; `loss=tpo-l` with `tpo_alpha=0` is `simpo`. TRL's TPOTrainer
has the same keys (`loss_type` is `loss` here) and averages the likelihood over all tokens of the batch: `average=batch`.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="tpo",
    title="Triple preference optimization",
    paper=Paper(
        title=("Triple Preference Optimization: Achieving Better Alignment using a Single Step Optimization"),
        authors="Amir Saeidi, Shivanshu Verma, Aswin RRV, Kashif Rasul, Chitta Baral",
        year=2024,
        arxiv="2405.16681",
    ),
    summary="A preference between two answers and the likelihood of a third, gold one, in one run without a reference.",
    use_when=(
        "You have a gold answer beside each pair, a base model that was not fine-tuned yet, and no wish for two stages."
    ),
    failure_signs=(
        "`tpo/nll` falls and margins stand still: the likelihood rules; raise beta or lower tpo_alpha. Winner's "
        "`logps/chosen` falls: raise tpo_alpha, or choose pairs nearer to the gold answers."
    ),
    defaults={"beta": 0.01, "learning_rate": 5e-07},
    papers_config={
        "Llama-3-Base, 5K, authors' code": "beta 0.01, tpo_alpha 1, tpo_l_gamma 0.5 (tpo-l), learning_rate 5e-7",
        "Mistral-v0.3-Base, 5K, tpo-l, authors' code": "beta 2, tpo_alpha 0.05, tpo_l_gamma 1.6, learning_rate 5e-7",
    },
)
