"""WPO weighs pairs by how likely the policy would be to write them itself.

```text
w(y) = exp(mean over tokens of [log pi(y_t) - log sum_v pi(v)^2])
loss = sg[w(y_w) w(y_l)] * (-log sigma(u))                 u as in DPO, sg: no gradient
```

Pairs written by other models are off-policy; the weights imitate training on the policy's own samples. A
weight is about 1 for text the policy would write, far below for foreign text.

## Relations

Equal weights give DPO. Other losses take the same weights by `use_weighting=true`, TRL's key. Weights are not normalised, so the loss and gradients are smaller than DPO's.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="wpo",
    title="Weighted preference optimization",
    paper=Paper(
        title="WPO: Enhancing RLHF with Weighted Preference Optimization",
        authors="Wenxuan Zhou, others",
        year=2024,
        arxiv="2406.11827",
        venue="EMNLP 2024",
    ),
    summary="DPO with pairs weighted by their likelihood under the current policy.",
    use_when="Pairs come from several other models (UltraFeedback, say).",
    failure_signs=(
        "`wpo/weight` near 0 for all pairs: nothing is on-policy and steps vanish; raise the learning rate, "
        "SFT on the winners first, or use dpo."
    ),
    defaults={"beta": 0.01},
    papers_config={
        "paper": "beta 0.01",
    },
)
