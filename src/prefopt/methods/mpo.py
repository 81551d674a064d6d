"""MPO learns which of two answers is better, how good each is, and how to write the better one.

```text
w_p dpo + w_q bco_pair + w_g sft
    dpo       -log sigma(beta (rho_w - rho_l))
    bco_pair  -log sigma(beta rho_w) - log sigma(-beta rho_l)
    sft       -log pi(y_w) / |y_w|
```

w_p is `preference_weight` (0.8), w_q `quality_weight` (0.2), w_g `generation_weight` (1). Made to train long reasoning about images, where DPO alone
leads to answers that break off or repeat themselves; nothing in it is about images.

The paper's quality term is BCO, whose threshold follows a running mean of rewards; here, as in TRL, it stays at 0.

## Relations

The sum `0.8*dpo+0.2*bco_pair+sft` written as a method: the same loss, with one key a weight.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="mpo",
    title="Mixed preference optimization",
    modality="any",
    paper=Paper(
        title="Enhancing the Reasoning Ability of Multimodal Large Language Models via Mixed Preference Optimization",
        authors=(
            "Weiyun Wang, Zhe Chen, Wenhai Wang, Yue Cao, Yangzhou Liu, Zhangwei Gao, Jinguo Zhu, Xizhou Zhu, Lewei Lu, "
            "Yu Qiao, Jifeng Dai"
        ),
        year=2024,
        arxiv="2411.10442",
    ),
    summary="DPO, BCO's two sides and the winner's likelihood, in one sum.",
    use_when="Chains of reasoning, or any pairs on which DPO alone makes the winner less likely.",
    failure_signs=(
        "The loss hardly moves: it is mostly the winner's likelihood, look at rewards/margins. Rewards of the loser fall without "
        "end: lower quality_weight."
    ),
    defaults={"beta": 0.1, "preference_weight": 0.8, "quality_weight": 0.2, "generation_weight": 1.0},
    papers_config={"InternVL2-8B": "beta 0.1, weights 0.8, 0.2 and 1, learning_rate 5e-6, batch 256"},
)
