"""V-DPO trains a policy that is guided away from what it would say without the image.

```text
g(y) = (1 + alpha) log pi(y|m,x) - alpha sg[log pi(y|blank,x)]
loss = -log sigma(beta [(g(y_w) - log pi_ref(y_w|m,x)) - (g(y_l) - log pi_ref(y_l|m,x))])
```

As in classifier-free guidance, alpha says how far the image's part is stretched. The answers are scored a second time under a blank
image, without gradient: by the policy as it is, or with `prior: reference` by the reference. `image_weight` adds mDPO's image term on y_w with
the blank side held fixed.

**alpha has to be given**: the value of the paper is not known to us. 0 is DPO; the authors' launch file sets 1 + alpha to 0, where no
gradient is left, so -1 and below are refused.

Rows hold `prompt`, `image`, `chosen`, `rejected`. The paper trains on pairs of images under one answer, too, where log Z(m)/Z(m') is missing.

## How to read the logs

`vdpo/image_sensitivity` is log pi(y_w|m) - log pi(y_w|blank), in nats: how much the image says about the right answer. It should rise.

## Relations

`dpo` at alpha 0. `povid` contrasts with what noise makes the model say; `mdpo` with a spoilt image.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="vdpo",
    title="Vision-guided DPO",
    modality="vision",
    paper=Paper(
        title=(
            "V-DPO: Mitigating Hallucination in Large Vision Language Models via Vision-Guided Direct Preference Optimization"
        ),
        authors="Yuxi Xie, Guanzhen Li, Xiao Xu, Min-Yen Kan",
        year=2024,
        arxiv="2411.02712",
        venue="EMNLP 2024 Findings",
    ),
    summary="DPO on log-probabilities that are stretched away from those without the image.",
    use_when="Ordinary pairs with images and a model whose answers hardly depend on the image.",
    failure_signs=(
        "`vdpo/image_sensitivity` grows by tens of nats while `logps/chosen` falls: alpha is too large. It stays where it was: "
        "the answers do not depend on the image, take rows whose losers are wrong about it."
    ),
    defaults={"beta": 0.1, "learning_rate": 1e-6, "num_train_epochs": 4},
    papers_config={
        "RLHF-V, 5.7k rows": "beta 0.1, learning_rate 1e-6, 4 epochs, batch 64",
        "script": "gamma = 1 + alpha is 0 in the released launch file, which trains nothing",
    },
)
