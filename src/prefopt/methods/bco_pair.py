"""The paired form of BCO: the winner is a positive example, the loser a negative one.

```text
r = beta log pi(y)/pi_ref(y)
loss = -log sigma(r_w) - log sigma(-r_l)
```

Each side is pushed on its own: the winner above the reference and the loser below, not only apart.

## Relations

`bco` with delta = 0 on the two sides; the regularizer in MPO's mixture, `0.8*dpo+0.2*bco_pair+sft`. `nca`
also pulls a too likely winner back; `apo_zero` is the bounded form.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="bco_pair",
    title="Binary classifier optimization on pairs",
    modality="any",
    paper=Paper(
        title="Binary Classifier Optimization for Large Language Model Alignment",
        authors="Seungjae Jung, Gunsoo Han, Daniel Wontae Nam, Kyoung-Woon On",
        year=2024,
        arxiv="2404.04656",
    ),
    summary="Winner up and loser down, each as its own logistic regression.",
    use_when="DPO lowers the likelihood of winners and you want it raised; or as a term beside dpo.",
    failure_signs=(
        "Both rewards grow without end: raise beta or stop earlier. The margin grows by the loser alone: "
        "lower the learning rate, or add sft."
    ),
    defaults={"beta": 0.01, "learning_rate": 5e-07},
)
