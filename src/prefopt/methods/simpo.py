"""SimPO uses the average log-probability of a response as its reward, without a reference.

```text
a = log pi(y) / |y|
loss = -log sigma(beta (a_w - a_l) - gamma)
```

The length average removes the reward for long answers and matches what generation maximises; gamma asks for
a gap between winner and loser. Give `gamma`, or `gamma_beta_ratio` as the authors' code does.

## Relations

`contrastive_po` without its likelihood term, on averages, is SimPO with gamma = 0. `bpo` with `ratio=simpo`
changes the link. TRL's default beta of 0.1 is unsuitable for averages.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="simpo",
    title="Simple preference optimization",
    paper=Paper(
        title="SimPO: Simple Preference Optimization with a Reference-Free Reward",
        authors="Yu Meng, Mengzhou Xia, Danqi Chen",
        year=2024,
        arxiv="2405.14734",
        venue="NeurIPS 2024",
    ),
    summary="Length-averaged log-probabilities as rewards and a target margin; no reference model.",
    use_when=(
        "Chat data with lengths that differ, no memory or time for a reference, and willingness to tune "
        "beta, gamma and learning rate."
    ),
    failure_signs=(
        "Repetitive or broken text, `kl` far above DPO's: the learning rate is too high (above 1e-6 for "
        "large models); nothing else holds the policy. A beginning-of-sequence token written twice also "
        "ruins runs: look at the first decoded pair."
    ),
    defaults={"beta": 2.0},
    papers_config={
        "Mistral-7B-Base": "beta 2, gamma_beta_ratio 0.8, learning_rate 3e-7, batch 128",
        "Llama-3-8B-Base": "beta 2, gamma_beta_ratio 0.5, learning_rate 6e-7, batch 128",
        "Llama-3-8B-Instruct (v0.2)": "beta 10, gamma_beta_ratio 0.3, learning_rate 1e-6, batch 128",
        "all": "cosine schedule, warmup_ratio 0.1, adamw",
    },
)
