"""NCA raises each response's likelihood in proportion to its reward, against noise drawn from the reference.

```text
r = beta log pi(y)/pi_ref(y)
loss = -log sigma(r_w) - [log sigma(-r_w) + log sigma(-r_l)] / 2
```

Because absolute likelihoods are trained, and not their difference alone, the winner's likelihood is kept
from falling.

## Relations

It halves the loser's term of `bco_pair` and adds one, -log sigma(-r_w)/2, that pulls a too likely winner
back. TRL calls it "nca_pair".
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="nca",
    title="Noise contrastive alignment",
    modality="any",
    paper=Paper(
        title="Noise Contrastive Alignment of Language Models with Explicit Rewards",
        authors="Huayu Chen, Guande He, Lifan Yuan, Ganqu Cui, Hang Su, Jun Zhu",
        year=2024,
        arxiv="2402.05369",
        venue="NeurIPS 2024",
    ),
    summary="Contrasts each side with the reference, so that the winner's own likelihood does not sink.",
    use_when=(
        "DPO lowers winners, as it often does in reasoning and code, where the winner itself should become "
        "more likely."
    ),
    failure_signs=(
        "Winner's reward settles above 0 and both sides stop moving: that is its optimum; lower beta for a "
        "wider gap. `kl` explodes: raise beta or lower the learning rate."
    ),
    defaults={"beta": 0.01, "learning_rate": 5e-06},
    papers_config={
        "paper's settings in TRL's documentation": "beta 0.01, learning_rate 5e-6, batch 32",
    },
)
