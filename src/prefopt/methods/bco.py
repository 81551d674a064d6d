"""BCO trains a binary classifier of good and bad responses whose logit is the DPO reward.

```text
r = beta log pi(y)/pi_ref(y)      delta = (mean r of good + mean r of bad)/2, running, no gradient
good: -log sigma(r - delta)       bad: -log sigma(delta - r)
```

The paper shows that this bounds DPO's loss from above and that the shift delta tightens the bound. The
running means are over the whole run so far. The density-ratio weights for prompts of different origin are
not part of this library.

## Relations

`bco_pair` is the form on pairs with delta = 0. `kto` saturates for extreme rewards; BCO does not.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="bco",
    title="Binary classifier optimization",
    modality="any",
    paper=Paper(
        title="Binary Classifier Optimization for Large Language Model Alignment",
        authors="Seungjae Jung, Gunsoo Han, Daniel Wontae Nam, Kyoung-Woon On",
        year=2024,
        arxiv="2404.04656",
    ),
    summary="Logistic classification of good and bad single responses, around a running reward shift.",
    use_when="Thumbs up or down without pairs, from prompts of one kind.",
    failure_signs=(
        "`bco/delta` runs away from 0: the two kinds are unbalanced or separated by length; balance them. "
        "Accuracy rises while `kl` explodes: raise beta or lower the learning rate."
    ),
    defaults={"beta": 0.01, "learning_rate": 5e-07},
    papers_config={
        "paper's settings in TRL's documentation": "beta 0.01, learning_rate 5e-7, batch 128",
    },
)
