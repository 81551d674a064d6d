"""DiscoPOP blends the logistic and the exponential loss; a language model discovered it.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]      s = sigma(u/tau)
loss = (1 - s) (-log sigma(u)) + s e^-u
```

It is not monotone: at the default tau it rises with u from about -0.12 to 0.07, so the first gradients, at
policy = reference, lower the margin. The paper reports gains on several tasks all the same.

## Relations

Far below 0 it is DPO's logistic loss, far above 0 the exponential one. The paper calls it log-ratio
modulated loss (LRML).
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="discopop",
    title="DiscoPOP",
    modality="any",
    paper=Paper(
        title="Discovering Preference Optimization Algorithms with and for Large Language Models",
        authors="Chris Lu, others",
        year=2024,
        arxiv="2406.08414",
        venue="NeurIPS 2024",
    ),
    summary="A discovered blend of logistic and exponential loss, switched by the margin.",
    use_when=(
        "You want to reproduce the paper, or an odd baseline; else prefer dpo or bpo, whose behaviour is "
        "understood."
    ),
    failure_signs=(
        "Margins fall at first and some pairs never leave u < 0: this is the hump of the loss; raise the "
        "learning rate, or raise tau (up to 1) to flatten it."
    ),
    defaults={"beta": 0.05},
    papers_config={
        "paper": "beta 0.05, tau 0.05",
    },
)
