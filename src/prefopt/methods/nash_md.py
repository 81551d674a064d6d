"""Play against a mixture of yourself and where you began, and become what no answer is preferred to.

A judge of two answers need not rank them: A may beat B, B beat C and C beat A, and no reward says so. Nash-MD seeks the
policy that wins at least half of its games against any other, by games against an opponent near itself.

```text
y  ~ pi                     y' ~ pi_mix,  log pi_mix(v|.) = (1-c) log pi(v|.) + c log pi_ref(v|.) + constant, token by token
P  = P(y preferred to y')                 of the judge; with a reward r: sigma(r(y) - r(y'))
loss = beta rho(y)^2 / 2 - (P - 1/2) rho(y),                            rho(y) = log pi(y|x) - log pi_ref(y|x)
grad = -(P - 1/2 - beta rho(y)) grad log pi(y|x)                        the paper's, tau = beta; 1/2 is a baseline
```

Nothing of y' is trained on: it is there to be compared with.

```bash
prefopt train nash_md model=DIR data=prompts.jsonl judge=reward:DIR rounds=10 prompts_per_round=128
prefopt train nash_md model=world:text data=world:text rounds=3 learning_rate=1e-4
```

Rows are prompts (labels that are there are not looked at), and `responses` answers are sampled to each, half of them the
opponent's. Judges: see [online training](../online.md). The opponent is sampled in this process, since servers mix no models.

## Exact, and not

The mixture is the paper's, one token at a time, and draws from it exactly. The gradient is the paper's wherever the policy that
is trained is the one that sampled: at the first update of a round. A round of several updates (`prompts_per_round` above the
effective batch, or several epochs) goes on with answers of an older policy; the loss, a square around
`rho = (P - 1/2) / beta`, then draws their log-ratios to the value at which the paper's gradient vanishes, and no further. With
`prompts_per_round` equal to the effective batch and `num_train_epochs=1`, a round is one update and the paper's step.

TRL's trainer (until 1.0) takes token by token a product of log-ratio and log-probability for the KL term, which leaves
out what a token does to later ones; the sum over the answer here is the paper's.

## Relations

`mixture_coef=0` is self-play, `mixture_coef=1` the best response to the reference. `xpo` and `online_dpo` need a judge, too, and
assume that it ranks. `sppo` squares both log-ratios of a pair around the same targets.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="nash_md",
    title="Nash mirror descent",
    modality="text",
    stages="judged",
    opponent="mixture",
    paper=Paper(
        title="Nash Learning from Human Feedback",
        authors="Rémi Munos, Michal Valko, Daniele Calandriello, others",
        year=2023,
        arxiv="2312.00886",
        venue="ICML 2024",
    ),
    summary="Policy gradient on the probability of beating a mixture of the policy and its reference.",
    use_when=(
        "A judge that compares answers and may contradict itself (A over B, B over C, C over A), prompts, and no labels. Where "
        "a reward ranks answers, `online_dpo` is simpler and learns from both answers of a pair."
    ),
    failure_signs=(
        "`nash_md/probability` stays near one half: answers differ too little; raise response_temperature or mixture_coef. "
        "Rewards jump from line to line: a policy gradient is noisy; more prompts a round, a smaller learning rate. The KL grows "
        "round by round: raise beta."
    ),
    defaults={"beta": 0.1, "learning_rate": 5e-07, "response_temperature": 0.9},
    papers_config={
        "paper": "mixture_coef 0.125 or 0.25 did best, beta (tau) 0.008",
        "TRL": "beta 0.1, mixture_coef 0.5, learning_rate 5e-7, temperature 0.9",
    },
)
