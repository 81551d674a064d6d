"""DPO on the policy's own answers, ranked by a judge.

Rounds like those of `ssapo`, but a judge labels: a world's verifier, any function of (prompt, answer), or a language model
behind an OpenAI-compatible server, which is asked about every two answers to a prompt, in both orders. The best and the
worst of `responses` answers make a pair; answers that the judge finds equal make none.

```text
(labelled pairs -> DPO ->) [prompts -> answers -> judge -> pairs -> DPO] x rounds
```

```bash
prefopt train online_dpo model=DIR data=prompts.jsonl judge=reward:DIR rounds=3
prefopt train online_dpo model=world:text data=world:text seed_pairs=40 rounds=3 learning_rate=1e-4
```

Prompts alone will do: without labelled pairs the first round begins with the starting model. Judges by name, reward models and
weighted sums among them, what is measured on held-out prompts, and servers that sample: see [online training](../online.md).
`judge=openai:MODEL@URL` names a judge behind a server; its verdicts are kept in `stages/N/verdicts.jsonl`, and a prompt with
one that cannot be read is left out. From Python, `prefopt.train("online_dpo", ..., reward=function)` makes the function the judge.

## Relations

The labels that `ssapo` and `spa` do without. One round is one pass over fresh answers, so it is "online" by the round
and not by the batch; more, smaller rounds (`rounds`, `prompts_per_round`) come nearer to that.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="online_dpo",
    title="Online direct preference optimization",
    modality="text",
    stages="judged",
    objective="dpo",
    paper=Paper(
        title="Direct Language Model Alignment from Online AI Feedback",
        authors="Shangmin Guo, others",
        year=2024,
        arxiv="2402.04792",
    ),
    summary="DPO in rounds on the policy's own answers, ranked by a judge.",
    use_when="You can judge answers by a rule, a test or a model, and want to learn from what the policy itself writes.",
    failure_signs=(
        "Few pairs a round: the judge finds most answers equal; sample more of them, or hotter. Reward rises while "
        "samples get worse to read: the judge is being exploited; stop earlier, raise beta, look at `length` and "
        "repetition."
    ),
    defaults={"beta": 0.1, "learning_rate": 5e-07},
    papers_config={"paper": "2 answers at temperature 0.9, beta 0.1, learning_rate 5e-7, batch 128"},
)
