"""APO-down lowers both sides, the loser more: for pairs whose winner is worse than the model.

```text
r = beta log pi(y)/pi_ref(y)
loss = sigma(r_w) + [1 - sigma(r_w - r_l)]
```

At policy = reference the winner has zero gradient and the loser is lowered; later the winner follows
slowly.

## Relations

`apo_zero` for winners better than the model. TRL calls it "apo_down".
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="apo_down",
    title="Anchored preference optimization, down",
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
    summary=(
        "Both sides down, the loser more: learn from contrasts between two responses worse than the model."
    ),
    use_when="A strong model trained on old pairs, whose winners it already surpasses.",
    failure_signs=(
        "`logps/chosen` falls, which is intended; text degenerates: too long or too fast, lower the learning "
        "rate. Winners are in fact good: use apo_zero."
    ),
    defaults={"beta": 0.1, "learning_rate": 2e-07},
    papers_config={
        "paper's settings in TRL's documentation": "beta 0.1, learning_rate 2e-7, batch 64",
    },
)
