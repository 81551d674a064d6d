"""The hinge loss stops pushing a pair as soon as its reward margin is 1.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]
loss = max(0, 1 - u)
```

SLiC's loss (arXiv 2305.10425) on log-ratios, called hinge-norm in RSO, the paper cited here. RSO also draws
its pairs by rejection sampling, which this library does not do for you.

## Relations

`slic` is the form without a reference. Unlike DPO, pairs beyond the margin have exactly zero gradient.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="hinge",
    title="Hinge loss (SLiC, RSO)",
    modality="any",
    paper=Paper(
        title="Statistical Rejection Sampling Improves Preference Optimization",
        authors="Tianqi Liu, others",
        year=2023,
        arxiv="2309.06657",
        venue="ICLR 2024",
    ),
    summary=(
        "A support vector machine's loss on the reward margin: pairs beyond a margin of 1 no longer count."
    ),
    use_when="You want separated pairs to stop moving, for example to hold drift down on easy data.",
    failure_signs=(
        "Loss reaches 0 early and nothing more is learnt: lower beta, which asks for a larger log-ratio "
        "margin. Large drift: raise beta."
    ),
    defaults={"beta": 0.05},
    papers_config={
        "RSO": "gamma (here beta) 0.05",
    },
)
