"""f-PO minimises an f-divergence between the policy's preference for a pair and the label.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]
q = (sigma(u), sigma(-u))     p = (1 - e, e)     loss = sum_i p_i f(q_i / p_i)
f: forward_kl, reverse_kl, jeffrey, js, alpha, hellinger            e = label_smoothing
```

At e = 0 only the winner's term f(sigma(u)) is kept. This is the paper's form for pairs; its form for many
responses with rewards is not part of this library.

## Relations

forward_kl is `cdpo` up to a constant (DPO at e = 0), reverse_kl is `exo`. Another f moves the optimum away
from DPO's, which `prefopt reproduce bpo` shows.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="f_po",
    title="f-PO (pairwise)",
    modality="any",
    paper=Paper(
        title="f-PO: Generalizing Preference Optimization with f-divergence Minimization",
        authors="Jiaqi Han, Mingjian Jiang, Yuxuan Song, Stefano Ermon, Minkai Xu",
        year=2024,
        arxiv="2410.21662",
    ),
    summary=(
        "An f-divergence between modelled and observed preference, from forward to reverse KL and beyond."
    ),
    use_when="You compare divergences between DPO and EXO; js and alpha are the paper's favourites.",
    failure_signs=(
        "Flat loss while the policy is wrong (js, reverse_kl, hellinger saturate): begin from a better model "
        "or use forward_kl. Entropy collapses: raise beta or label_smoothing."
    ),
    defaults={"beta": 0.1, "label_smoothing": 0.001},
    papers_config={
        "paper": "label_smoothing 1e-3, alpha 0.1 to 0.5",
    },
)
