"""SPPO plays the policy against itself: each response's log-ratio is regressed onto how often it wins.

```text
rho = log pi(y)/pi_ref(y)
loss = (rho_w - 1/(2 beta))^2 + (rho_l + 1/(2 beta))^2         beta = 1/eta
```

Hard labels stand for win rates of 1 and 0. The paper repeats the step: sample from the policy, judge, train
with the last policy as reference. One run here is one such round; soft votes give its soft form.

## Relations

`ipo` regresses the difference alone. Losses are of order (1/(2 beta))^2 = 250000 at the default, which is
no error.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="sppo",
    title="Self-play preference optimization",
    modality="any",
    paper=Paper(
        title="Self-Play Preference Optimization for Language Model Alignment",
        authors="Yue Wu, Zhiqing Sun, Huizhuo Yuan, Kaixuan Ji, Yiming Yang, Quanquan Gu",
        year=2024,
        arxiv="2405.00675",
    ),
    summary="Each side's log-ratio is regressed onto its win rate; made for rounds of self-play.",
    use_when="You sample responses from the current policy and judge them, round after round.",
    failure_signs=(
        "Divergence in the first steps: targets of 500 nats make large gradients; keep max_grad_norm, lower "
        "the learning rate. No gain on fixed old data: it is meant for fresh samples; use dpo."
    ),
    defaults={"beta": 0.001, "learning_rate": 5e-07},
    papers_config={
        "paper": "beta 0.001 (eta 1000), learning_rate 5e-7, three rounds",
    },
)
