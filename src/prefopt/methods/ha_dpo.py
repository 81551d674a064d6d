"""HA-DPO is DPO on descriptions with their hallucinations corrected, both sides rewritten in one style.

```text
-log sigma(beta (rho_w - rho_l)) + lambda_aux nll(instruction sample)          nll: mean over its tokens
```

lambda_aux is `auxiliary_weight`. The data is the method: a strong model finds what is wrong in the model's own description, corrects
it, and rewrites *both* sides, so that style does not tell them apart. Rows hold `prompt`, `image`, `chosen`, `rejected`. With a weight above 0 every
row has an instruction sample beside it (`auxiliary_prompt`, `auxiliary_response`): the authors do so for MiniGPT-4 (0.5) and not for LLaVA.

## Relations

`dpo` at `auxiliary_weight: 0`. `dpo+0.5*sft` takes the likelihood of the chosen answer instead of another sample's.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="ha_dpo",
    title="Hallucination-aware DPO",
    modality="vision",
    paper=Paper(
        title="Beyond Hallucinations: Enhancing LVLMs through Hallucination-Aware Direct Preference Optimization",
        authors="Zhiyuan Zhao, Bin Wang, Linke Ouyang, Xiaoyi Dong, Jiaqi Wang, Conghui He",
        year=2023,
        arxiv="2311.16839",
    ),
    summary="DPO on corrected descriptions in one style, beside the likelihood of instruction data.",
    use_when="Pairs that differ in hallucinations alone; with instruction data where the model forgets how to follow it.",
    failure_signs=(
        "Accuracy near 1 within a few steps: the sides differ in style, rewrite both. `ha_dpo/auxiliary` rises: raise "
        "auxiliary_weight."
    ),
    defaults={"beta": 0.1, "auxiliary_weight": 0.0, "learning_rate": 2e-6, "num_train_epochs": 1},
    papers_config={
        "LLaVA-1.5": "LoRA with r 128 and alpha 256, learning_rate 2e-6, 1 epoch, projector frozen, no instruction data",
        "MiniGPT-4": "auxiliary_weight 0.5",
    },
)
