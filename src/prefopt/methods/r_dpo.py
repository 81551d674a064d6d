"""R-DPO discounts the part of a preference that a longer answer explains.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]
loss = -log sigma(u + alpha (|y_w| - |y_l|))
```

A longer winner counts as partly preferred already and teaches less; a shorter winner teaches more.

## Relations

alpha = 0, or equal lengths, is DPO. `ld_dpo` discounts surplus tokens, `simpo` averages over tokens. Signs
differ between texts; here alpha > 0 works against length.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="r_dpo",
    title="Length-regularised DPO",
    paper=Paper(
        title="Disentangling Length from Quality in Direct Preference Optimization",
        authors="Ryan Park, Rafael Rafailov, Stefano Ermon, Chelsea Finn",
        year=2024,
        arxiv="2403.19159",
    ),
    summary="DPO with a reward per token of length difference, so that length itself is not learnt.",
    use_when=(
        "Chosen answers are mostly the longer ones (`prefopt check` says how often) and DPO makes the model "
        "verbose."
    ),
    failure_signs=(
        "Answers become too short: lower alpha. Nothing changes: alpha times the usual difference of lengths "
        "should be of order 1; raise alpha. Loss near 0 at once: alpha is too large."
    ),
    defaults={"alpha": 0.05},
)
