"""SLiC separates the two log-probabilities by a margin and holds on to the winner's likelihood.

```text
loss = max(0, delta - log pi(y_w) + log pi(y_l)) - lambda log pi(y_w)
```

A loss without a reference; the likelihood term takes the part of the penalty. The paper regularises on SFT
targets; here the winner is the target. Write `lambda=0.1`.

## Relations

`hinge` is the form on log-ratios. `contrastive_po` has a logistic in place of the hinge.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="slic",
    title="Sequence likelihood calibration",
    paper=Paper(
        title="SLiC-HF: Sequence Likelihood Calibration with Human Feedback",
        authors="Yao Zhao, Rishabh Joshi, Tianqi Liu, Misha Khalman, Mohammad Saleh, Peter J. Liu",
        year=2023,
        arxiv="2305.10425",
    ),
    summary="A hinge between log-probability sums plus the winner's likelihood; no reference.",
    use_when="No room for a reference and winners worth imitating; simple and cheap.",
    failure_signs=(
        "The hinge is 0 early and only the likelihood trains: raise delta. Long losers are punished for "
        "length: sums are compared; use simpo. Likelihood dominates (sums are large): lower lambda."
    ),
    defaults={"delta": 1.0},
)
