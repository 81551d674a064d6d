"""DPOP is DPO with a penalty on winners that become less likely than under the reference.

```text
rho = log pi(y)/pi_ref(y)
loss = -log sigma(beta [rho_w - rho_l - lambda max(0, -rho_w)])
```

DPO can widen a margin by lowering both sides, most of all where the two differ in a few tokens (maths,
edits). The penalty makes that expensive. Write `lambda=50`.

## Relations

Equals DPO while rho_w >= 0. `dpo+sft` and `nca` have the same aim with gentler means. lambda lies inside
beta, as in the corrected version of the paper.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="dpop",
    title="DPO-Positive (Smaug)",
    modality="any",
    paper=Paper(
        title="Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive",
        authors="Arka Pal, others",
        year=2024,
        arxiv="2402.13228",
    ),
    summary="DPO that may not lower the winner's likelihood.",
    use_when="Winner and loser differ little (maths, code, edits) and `displacement` is high under DPO.",
    failure_signs=(
        "`dpop/active` near 1 and both rewards rising, chat quality below DPO's: the penalty rules; lower "
        "lambda (5 to 50) or use dpo+sft. The first steps are violent: lower the learning rate."
    ),
    defaults={"beta": 0.3, "lambda_": 50.0},
    papers_config={
        "paper": "beta 0.3, lambda 50; insensitive in 5 to 500 by a later version",
    },
)
