"""APO-zero raises winners and lowers losers, each with a bounded loss anchored at the reference.

```text
r = beta log pi(y)/pi_ref(y)
loss = [1 - sigma(r_w)] + sigma(r_l)
```

DPO fixes the difference only; which way the two sides move is left open. APO says it: zero for winners that
are better than what the model writes, `apo_down` for winners that are worse.

## Relations

`bco_pair` with a bounded loss; `apo_down` for the other case.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="apo_zero",
    title="Anchored preference optimization, zero",
    modality="any",
    paper=Paper(
        title=(
            "Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in "
            "Alignment"
        ),
        authors="Karel D'Oosterlinck, others",
        year=2024,
        arxiv="2408.06266",
    ),
    summary="Winner up, loser down, each anchored at the reference with a bounded loss.",
    use_when="Winners are better than the model's own answers (a stronger model or an editor wrote them).",
    failure_signs=(
        "Model output gets worse although margins grow: winners may be worse than the model; use apo_down. "
        "Rewards saturate and gradients vanish: lower beta."
    ),
    defaults={"beta": 0.1, "learning_rate": 2e-07},
    papers_config={
        "paper's settings in TRL's documentation": "beta 0.1, learning_rate 2e-7, batch 64",
    },
)
