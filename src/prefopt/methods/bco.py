"""BCO trains a binary classifier of good and bad responses whose logit is the DPO reward.

```text
r = beta log pi(y)/pi_ref(y)      delta = (mean r of good + mean r of bad)/2, running, no gradient
good: -log sigma(r - delta)       bad: -log sigma(delta - r)
```

The paper shows that this bounds DPO's loss from above and that the shift delta tightens the bound. The
running means are over the whole run so far.

Where thumbs up and thumbs down come from different prompts, the classifier may learn the prompts. With
`density_ratio_weights=true` the loss of a bad sample is multiplied by `p(prompt | good) / p(prompt | bad)`, within
`min_density_ratio` and `max_density_ratio`: a logistic regression of the starting model's hidden states at the prompt's
last token tells it, fitted on at most `prompt_sample_size` prompts of each kind with both kinds counted alike. Every
prompt is judged by a regression that has not seen it, and the run says how well those tell the kinds apart: at an
accuracy of about 0.5 there is nothing to correct. Rows may bring weights of their own in a column `density_ratio`.

## Relations

`bco_pair` is the form on pairs with delta = 0. `kto` saturates for extreme rewards; BCO does not. TRL's former
BCOTrainer took an embedding function and judged prompts by the regression that was fitted on them; the names of the keys
are its.
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
    use_when="Thumbs up or down without pairs; from prompts of different kinds, with density_ratio_weights.",
    failure_signs=(
        "`bco/delta` runs away from 0: the two kinds are unbalanced or separated by length; balance them. "
        "Accuracy rises while `kl` explodes: raise beta or lower the learning rate."
    ),
    defaults={"beta": 0.01, "learning_rate": 5e-07},
    papers_config={
        "paper's settings in TRL's documentation": "beta 0.01, learning_rate 5e-7, batch 128",
    },
)
