"""beta-DPO sets beta from each batch and leaves out pairs whose margin is unusual.

```text
M0, S0: running mean and standard deviation of the margins m (momentum 0.9)
keep floor(0.8 N) rows, drawn with weights exp(-(m - M0)^2 / (2 S0^2))
beta_b = max(0.001, beta [1 + a (mean kept m - M0)])             no gradient
loss = -log sigma(beta_b m)
```

Large gaps get a larger beta (smaller steps), small gaps a smaller one. Rows that are not drawn have loss 0.

## Relations

a = 0 and drop = 0 is DPO. The draw depends on the seed and the step alone, so a resumed run repeats it. M0
and S0 start at the first batch's values, where the authors' code starts at 0.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="beta_dpo",
    title="beta-DPO",
    modality="any",
    paper=Paper(
        title="beta-DPO: Direct Preference Optimization with Dynamic beta",
        authors="Junkang Wu, others",
        year=2024,
        arxiv="2407.08639",
        venue="NeurIPS 2024",
    ),
    summary="DPO with a beta calibrated by the batch and with outliers left out.",
    use_when=(
        "Data of mixed quality and a beta that you cannot tune by data set; micro-batches of at least 5 "
        "rows, below which none is left out."
    ),
    failure_signs=(
        "`beta_dpo/beta` stuck at 0.001: margins fell below their mean; lower a. beta swings from step to "
        "step: lower a or enlarge the micro-batch."
    ),
    defaults={"beta": 0.1, "a": 0.6, "drop": 0.2, "momentum": 0.9},
)
