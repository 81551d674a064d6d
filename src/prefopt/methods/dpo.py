"""DPO turns preference learning into classification: which of two responses is the better one?

Under a reward model with a KL penalty, the reward is beta times the log-ratio of policy and reference, up
to a term that cancels between two responses of one prompt. Its logistic loss needs no reward model and no
sampling.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]
loss = -log sigma(u)
```

`margin=average` divides each log-ratio by its length (Tulu 3, TRL's "sigmoid_norm"; beta of 5 or more
then); `label_smoothing` gives cDPO.

## Relations

The root of most methods here. `dpo_rk` and `dpo_d` add ties, `bpo` reweights pairs at the same optimum,
`cdpo` and `robust` expect wrong labels, `ipo` bounds the margin, `dpop` and `dpo+sft` keep the winner's
likelihood up.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="dpo",
    title="Direct preference optimization",
    modality="any",
    paper=Paper(
        title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        authors=(
            "Rafael Rafailov, Archit Sharma, Eric Mitchell, Stefano Ermon, Christopher D. Manning, Chelsea "
            "Finn"
        ),
        year=2023,
        arxiv="2305.18290",
        venue="NeurIPS 2023",
    ),
    summary="Logistic regression on the difference of the two responses' log-ratios to the reference.",
    use_when=(
        "Clear wins, labels you trust, a good starting model: try this first, as the baseline of everything "
        "else."
    ),
    failure_signs=(
        "`rewards/accuracies` rises to 1 while `displacement` and `kl` climb: the policy overfits and lowers "
        "both sides; raise beta, lower the learning rate, stop earlier, or use dpo+sft. Answers grow longer "
        "(`length_gap`): see r_dpo, ld_dpo, simpo. Nothing moves: lower beta or raise the learning rate."
    ),
    defaults={"beta": 0.1, "learning_rate": 1e-06},
    papers_config={
        "paper": "beta 0.1 (0.5 for TL;DR), learning_rate 1e-6, batch 64, optim rmsprop, warmup_steps 150",
        "authors' code": "learning_rate 5e-7, max_grad_norm 10",
    },
)
