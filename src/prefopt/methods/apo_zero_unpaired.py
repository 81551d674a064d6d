"""The two terms of APO-zero on single labelled samples: good ones up, bad ones down, as far as a sigmoid reaches.

```text
r = beta log pi(y)/pi_ref(y)
good: w_D [1 - sigma(r)]        bad: w_U sigma(r)
```

Each kind is judged against the reference itself, and nothing is estimated from other rows: no completions of other
prompts are scored, and batches of one kind, of one row, or in any order will do.

## Relations

`kto` with its reference point z0 held at 0; TRL's KTOTrainer has it as `loss_type: apo_zero_unpaired`. On pairs taken
apart it is half of `apo_zero`. `bco` does not saturate.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="apo_zero_unpaired",
    title="APO-zero on single samples",
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
    summary="Good single responses above the reference and bad ones below, with bounded losses.",
    use_when="Thumbs up or down without pairs, where KTO's estimate of the drift is noisy or too dear.",
    failure_signs=(
        "Both kinds' rewards move the same way: one kind outnumbers the other; set desirable_weight and "
        "undesirable_weight. Rewards stop moving while accuracy is poor: the sigmoid is flat out there; lower beta."
    ),
    defaults={"beta": 0.1, "learning_rate": 2e-07},
)
