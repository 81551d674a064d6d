"""Few labels go further: the policy labels its own answers, and is trained against the worst of its doubts.

A first run on labelled pairs makes a policy whose implicit reward, beta log pi/pi_ref, can rank answers. Each round then
samples a few answers to new prompts, takes the best and the worst as a pair, and lets an adversary move the observed
gaps by `epsilon` on average before the policy is trained on them.

```text
xi_i    = beta [log pi/pi_ref (y_w) - log pi/pi_ref (y_l)]          gaps of the round's pairs, >= 0 by construction
worst   = sup over distributions within Wasserstein distance epsilon of the gaps:  E[-log sigma(xi)]
          exactly: in ascending order of xi, mass goes to the lower end A until the budget N epsilon is spent
loss    = (1 - f) ell(u) + f ell(u - d)       f: share moved, d: how far     (leader=shift)
```

The pairs that the policy is least sure of are judged at a worse gap than theirs and pull harder. That is pessimism, not
removal of wrong labels: a label that is wrong and sure looks like any other.

## Rounds

```bash
prefopt train ssapo model=DIR data=pairs.jsonl seed_pairs=2000 prompts=prompts.jsonl rounds=3
prefopt train ssapo model=world:text data=world:text seed_pairs=40 rounds=2 learning_rate=1e-4
```

`seed_pairs` rows are used with their labels: the first, or random ones, or those whose prompts lie farthest from each other
(`seed_selection`; each time the prompt whose nearest chosen one is farthest, as the paper says, where its code takes the
largest sum of distances). Prompts come from `prompts`, or from the other rows, whose labels
are then not looked at. Everything between two runs is a file in `stages/N/`: prompts, answers (kept one by one as they
arrive), their scores, the pairs with the adversary's constants, and the run itself with its own report. `resume=true` goes
on after any interruption, in the middle of a round too, and samples nothing twice. `generation_server=URL` samples from
an OpenAI-compatible server that can load a folder by name, such as `transformers serve` (started without a model; seeds are
heeded by few servers, so such a run cannot be repeated to the last digit).

`stage=gradient` trains the loss alone, on rows that carry the constants (`robust_moved`, `robust_shift`, ...).

## Paper and code

The printed algorithm weighs a pair by masses that sum to 1, so taken to the letter it is DPO (`leader=weights`); the
released code works on probabilities and discards the mass that the adversary moves (`leader=prob_atoms floor=clamp`).
`shift` and `dual` keep to the theory. The released solver stops before it converges; ours is exact, so numbers differ.
`epsilon` is in units of the gap, beta included, for `shift` and `dual`, and in probability for `prob_atoms`: the paper's 0.01
is of the latter kind and far weaker in the former.

## Relations

With `epsilon=0` the rounds are iterative DPO on self-made labels. `spa` smooths doubtful labels instead; `online_dpo`
asks a judge.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="ssapo",
    title="Stackelberg self-annotated preference optimization",
    modality="text",
    stages="self",
    paper=Paper(
        title="Stackelberg Self-Annotation: A Robust Approach to Data-Efficient LLM Alignment",
        authors="Xu Chu, Zhixin Zhang, Tianyu Jia, Yujie Jin",
        year=2025,
        arxiv="2502.18099",
        venue="NeurIPS 2025",
    ),
    summary="Rounds on pairs that the policy samples and labels itself, against the worst shift of their gaps.",
    use_when=(
        "A few thousand labelled pairs, many prompts without labels, and nobody to judge more answers. With a judge, "
        "`online_dpo` is the stronger choice."
    ),
    failure_signs=(
        "`labels right` in the report falls from round to round while the mean gap grows: wrong labels feed on themselves; "
        "fewer rounds, more labelled pairs, or a judge. Answers grow longer: implicit rewards are sums, so long answers "
        "have larger ones. No difference to `epsilon=0`: expected at small epsilon; compare before you rely on it."
    ),
    defaults={"beta": 0.1, "learning_rate": 5e-07, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1},
    papers_config={
        "paper, Mistral-7B": (
            "2,000 labelled pairs, 3 epochs on them, rounds of 8,000, 20,000 and 30,000 prompts, 2 answers at temperature "
            "0.7 of at most 300 tokens, beta 0.1, learning_rate 5e-7, batch 32, epsilon 0.01 in probability, 6 tangents, "
            "groups of 100"
        ),
        "paper, Llama-3-8B": "1 epoch, 2 rounds, beta 0.05, learning_rate 1e-6",
    },
)
