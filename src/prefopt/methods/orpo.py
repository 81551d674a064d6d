"""ORPO fine-tunes on the winner and, in the same step, lowers the odds of the loser.

```text
a = log pi(y) / |y|          log odds = a - log(1 - e^a)
loss = -a_w - lambda log sigma(log odds_w - log odds_l)
```

No reference and no SFT stage before it: the likelihood term is the SFT. Write `lambda=0.1`; TRL calls it
`beta`.

## Relations

`contrastive_po` is alike with log-probability sums in place of odds. The likelihood term here is a mean
over each completion; the authors' code takes prompt and completion, over all tokens of a batch.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="orpo",
    title="Odds ratio preference optimization",
    paper=Paper(
        title="ORPO: Monolithic Preference Optimization without Reference Model",
        authors="Jiwoo Hong, Noah Lee, James Thorne",
        year=2024,
        arxiv="2403.07691",
        venue="EMNLP 2024",
    ),
    summary=(
        "SFT on the winner plus a small odds-ratio penalty on the loser, in one stage without a reference."
    ),
    use_when="You start from a base model without SFT and have pairs whose winners are worth imitating.",
    failure_signs=(
        "`orpo/log_odds_ratio` does not rise: raise lambda. Text degenerates while it rises: lower lambda or "
        "the learning rate. Poor winners: the likelihood term imitates them, so use another method."
    ),
    defaults={"lambda_": 0.1, "learning_rate": 8e-06},
    papers_config={
        "paper": "lambda 0.1, learning_rate 5e-6 to 8e-6",
    },
)
