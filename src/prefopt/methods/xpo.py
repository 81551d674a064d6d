"""Online DPO that is paid for leaving what it knows.

DPO on its own answers learns of answers that it samples, so what the starting model finds unlikely stays unknown. XPO adds a
bonus: the log-probability of an answer that the *reference* wrote is held down, so that mass moves to what has not been tried.

```text
y ~ pi, y_ref ~ pi_ref, the judge says which is better
loss = -log sigma(beta (rho_w - rho_l)) + alpha log pi(y_ref|x)
```

```bash
prefopt train xpo model=DIR data=prompts.jsonl judge=reward:DIR rounds=5 alpha=1e-5
prefopt train xpo model=world:text data=world:text rounds=3 learning_rate=1e-4
```

Rows are prompts (labels that are there are not looked at), and `responses` answers are sampled to each, half of them by the
reference. Judges: see [online training](../online.md). Answers that the judge finds equal, or that are the same, make no pair.

## Exact, and not

The loss is that of the paper's algorithm 1, with the log-ratio in place of log pi(y_ref|x), from which it differs by a constant.
The paper minimises over all pairs so far, one of which is new in each iteration: `accumulate=true` with small rounds is nearest
to that; otherwise a round sees its own pairs alone, as TRL's trainer (until 1.0) sees its own batch. That trainer counts a tie
of two rewards as a win of the policy; here it makes no pair.

## Relations

`alpha=0` is DPO against the reference's answers; `online_dpo` pairs two answers of the policy. The bonus has no lower end: watch
`xpo/reference_logratio`, which falls by nature, against the KL of the samples.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="xpo",
    title="Exploratory preference optimization",
    modality="text",
    stages="judged",
    opponent="reference",
    paper=Paper(
        title=(
            "Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF"
        ),
        authors="Tengyang Xie, Dylan J. Foster, Akshay Krishnamurthy, others",
        year=2024,
        arxiv="2405.21046",
    ),
    summary="DPO of the policy's answers against the reference's, with a bonus for making the latter unlikely.",
    use_when=(
        "Prompts and a judge, and a starting model whose own answers are far from the best ones. With a good start, "
        "`online_dpo`, which samples both answers from the policy, wastes fewer of them."
    ),
    failure_signs=(
        "`probability` near 1 from the first rounds: the reference's answers lose always and teach nothing more; go on with "
        "online_dpo. Samples that fall apart while `xpo/reference_logratio` falls: lower alpha or raise beta."
    ),
    defaults={"beta": 0.1, "alpha": 1e-05, "learning_rate": 5e-07, "response_temperature": 0.9},
    papers_config={"TRL": "beta 0.1, alpha 1e-5, learning_rate 5e-7, temperature 0.9"},
)
