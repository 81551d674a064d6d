"""LD-DPO counts tokens beyond the shorter side's length only in part.

```text
p = min(|y_w|, |y_l|)
l(y) = sum of log pi(y_t) over t <= p  +  a * sum over t > p      (reference alike)
loss = -log sigma(beta [l(y_w) - l_ref(y_w) - l(y_l) + l_ref(y_l)])
```

Sums grow with length, and so does DPO's gradient on the longer side; `a` scales the surplus down.

## Relations

a = 1 is DPO. Before other losses the key `ld_alpha`, TRL's, does the same: `ipo` with `ld_alpha=0.5`. `r_dpo` corrects the margin in place of the sums, `simpo` averages.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="ld_dpo",
    title="Length-desensitised DPO",
    paper=Paper(
        title="Length Desensitization in Direct Preference Optimization",
        authors="Wei Liu, others",
        year=2024,
        arxiv="2409.06411",
    ),
    summary="DPO in which surplus tokens of the longer side count only a times.",
    use_when="DPO makes the model verbose, and content of the longer answers still matters.",
    failure_signs="Answers still grow: lower a. Endings get sloppy (a near 0 ignores them): raise a.",
    defaults={"a": 0.5},
)
