"""POVID rejects the tokens that the model itself is misled to by a noised image.

```text
(1 - mix) [-log sigma(beta (rho_w - rho_l))] + mix [-log sigma(beta (rho_w - rho_misled))]
rho_misled = sum_t [log pi(a_t | m, x, y_w before t) - log pi_ref(a'_t | m, x, y_w before t)]
a_t  = argmax pi(. | m', x, y_w before t)          a'_t the same of the reference
```

The first stage is `dpo` on answers into which hallucinations were injected (`mix: 0`). The second adds what is above: at each place of
y_w the token that is likeliest under the noised image m', scored under the clean one. Each model is given its own tokens, as in the released
code; the paper writes one sigmoid around both. Rows hold `prompt`, `image`, `contrast_image`, `chosen`, `rejected`.

## Relations

`dpo` at `mix: 0`. `vdpo` contrasts with a blank image, `mdpo` with the same answer under a spoilt image.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="povid",
    title="Preference optimization against hallucinations under noise",
    modality="vision",
    paper=Paper(
        title="Aligning Modalities in Vision Large Language Models via Preference Fine-tuning",
        authors="Yiyang Zhou, Chenhang Cui, Rafael Rafailov, Chelsea Finn, Huaxiu Yao",
        year=2024,
        arxiv="2402.11411",
    ),
    summary="Half DPO, half the model's own tokens under a noised image as the loser.",
    use_when="Pairs with injected hallucinations, and noised copies of the images.",
    failure_signs=(
        "`povid/reward_misled` goes where rewards/chosen goes: the noised image hardly changes the likeliest tokens, take more noise. "
        "`povid/reward_misled` falls while answers lose their fluency: lower mix."
    ),
    defaults={"contrast_image": "noise", "beta": 0.1, "mix": 0.5},
    papers_config={
        "both stages": "stage 1 on 17k injected hallucinations, stage 2 with noise at step 500 of 1000"
    },
)
