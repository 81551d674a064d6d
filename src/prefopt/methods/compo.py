"""Doubtful pairs are not trained on; they are asked which random moves of the weights help both sides.

Pairs whose two responses the reference finds about equally likely give a loss a bad signal: it widens the margin while
both likelihoods fall. ComPO trains on the clear pairs first, and then, pair by doubtful pair, tries many small random
moves of the output projection W. A move has helped if the chosen response became likelier *and* the rejected one less
likely; the moves vote, and W goes that way.

```text
clear pairs, |log pi_ref(y_w) - log pi_ref(y_l)| > split_margin:  DPO (first=simpo: SimPO)
a doubtful pair:   y_i = -1 if r z_i raises log pi(y_w) and lowers log pi(y_l), else +1,       i = 1..m
                   g = u / |u|,  u = sum_i y_i z_i,  small entries dropped
                   p = share of y_i = -1;     W <- W - gamma p g   if p > lambda
```

For many small moves the vote points along the sum of both unit gradients, a/|a| - b/|b|, along which neither likelihood
goes the wrong way to first order; DPO's a - b has no such property.

## Two stages

```bash
prefopt train compo model=DIR data=pairs.jsonl
prefopt train compo stage=oracle model=runs/dpo/model data=doubtful.jsonl
```

The first command splits (`stages/data/`, with each pair's margin), trains on the clean part (`stages/clean/run`) and asks
about the first `noisy_pairs` of the rest (`stages/noisy/run`); both are ordinary runs with checkpoints and a report. The
second command is the oracle alone, on whatever rows it is given.

Nothing is differentiated in the second stage: no gradients, no optimizer, no activations kept. Since only the head moves,
the model runs once a pair, and all moves are tried on the hidden states. `perturbed=REGEX` moves other parameters, at
two forward passes a move.

## Settings that do not carry over

`radius`, `lambda_g` and `gate` belong to heads of 7 to 9 billion parameter models. Elsewhere set `radius_relative=0.03`
and watch `compo/success_rate`: near 0 the moves are too large, near one half they drown in rounding. Of very similar
responses few moves can help, whatever the radius: lower the gate. A share of entries, `keep_fraction`, means the same at
every size; `lambda_g` does not.

## Paper and code

The paper draws moves on the unit sphere, the code as independent normals, for which the printed radius is made; so does
this. The code looks for doubtful pairs with the trained model in bfloat16 (`split_rule=release` keeps its one-sided
rule), tests the step at length 5 (`accept_check=trial`), and rounds the head to bfloat16 after every step, which loses most
of it; weights stay in float32 here.

## Relations

`dpop` and `dpo+sft` hold the chosen likelihood up within a loss; `robust` and `cdpo` expect wrong labels.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="compo",
    title="Preference alignment via comparison oracles",
    modality="text",
    stages="oracle",
    objective="dpo",
    paper=Paper(
        title="ComPO: Preference Alignment via Comparison Oracles",
        authors="Peter Chen, Xi Chen, Wotao Yin, Tianyi Lin",
        year=2025,
        arxiv="2505.05465",
        venue="NeurIPS 2025",
    ),
    summary="DPO on clear pairs; doubtful ones only vote on random moves of the output projection.",
    use_when=(
        "Many pairs whose sides are nearly alike, where DPO lowers both likelihoods (`displacement` rises); or a trained "
        "model, a few doubtful pairs and memory for inference only."
    ),
    failure_signs=(
        "`compo/stepped` near 0: the gate is shut; lower it, or the radius. `compo/success_rate` below 0.02 or above 0.48: "
        "wrong radius. Steps are taken and nothing changes: in a large head the vote is almost all noise (its cosine "
        "with the truth is about 0.002 at 7 billion parameters); more moves, or do not expect much of this stage."
    ),
    defaults={"learning_rate": 5e-07, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1},
    papers_config={
        "paper": (
            "split_margin 3, first 100 noisy pairs, perturbations 1600 (Mistral) or 1800, radius 5e-4 or 7.5e-4, gate 0.2, "
            "lambda_g 2.2e-4 (Mistral) or 8e-5; step_size not stated"
        ),
        "authors' code": "perturbations 1800, step_size 0.035, accept_check trial, about 0.18 as gate",
    },
)
