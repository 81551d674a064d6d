"""EXO minimises the reverse KL divergence from policy to label, where DPO minimises the forward one.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]      q = sigma(u)
loss = q log(q/(1 - e)) + (1 - q) log((1 - q)/e)                  e = label_smoothing
```

Reverse KL looks for a mode in place of covering everything. e must be positive, for the loss divides by it.

## Relations

`f_po` with f = reverse_kl is this loss; with forward_kl it is `cdpo` up to a constant. The paper's version
for K responses with rewards is not part of this library. TRL calls the pairwise form "exo_pair".
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="exo",
    title="Efficient exact optimization",
    modality="any",
    paper=Paper(
        title="Towards Efficient Exact Optimization of Language Model Alignment",
        authors="Haozhe Ji, others",
        year=2024,
        arxiv="2402.00856",
        venue="ICML 2024",
    ),
    summary="Reverse KL from the policy's preference to the smoothed label: mode seeking.",
    use_when="You want sharp, mode-seeking updates; labels come from a strong judge or reward model.",
    failure_signs=(
        "Zero gradients where the policy is surely wrong (u far below 0): the loss is flat there; start from "
        "a better model, raise label_smoothing, or use dpo. Diversity falls: raise beta."
    ),
    defaults={"beta": 0.1, "label_smoothing": 0.001},
    papers_config={
        "paper": "beta 0.1, label_smoothing 1e-3, learning_rate 1e-6, batch 64",
    },
)
