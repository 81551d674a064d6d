"""BPO keeps DPO's optimum and changes how hard each pair is pushed on the way there.

At DPO's optimum the policy's likelihood ratio of two responses equals a ratio of the data. DPO matches the
two ratios by logistic regression; BPO matches them by any Bregman divergence, one for each strictly convex
function h.

```text
u = beta [log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l)]     R = e^-u, clipped to [r_min, r_max]
loss = h'(R) R - h(R) - h'(1/R)
  lr     log(1 + R)                                             (= DPO)
  sba    (1/s) [(R^(1+lambda) - 1)/(1+lambda) - (R^-lambda - 1)/lambda]
  ba     s (1 + lambda) times sba
  kliep  R + log R                                              (ba at lambda = 0, up to a constant)
  lsif   R^2 - 2/R + 1                                          (ba at lambda = 1)
```

The default is `sba` with lambda = -1/2 and s = 4: the exponential loss e^(-u/2) - 1, bounded below. s = 4
makes its gradient at policy = reference equal to DPO's for every lambda, so DPO's learning rate is a fair
start.

## How to choose lambda

The weight of a pair is (e^(-(1+lambda) u) + e^(lambda u))/s.

| lambda | weight of well separated pairs (u large) | bounded below | advice |
|---|---|---|---|
| -1/2 | vanishes like e^(-u/2) | yes | start here; the paper's choice for all large models |
| 0 | tends to 1/s | no | the best of the miniature sweep with few wrong labels |
| 0.5 to 1.2 | grows like e^(lambda u) | no | clean labels, learning-rate warm-up and a clip only |
| 1.5 and more | grows fast | no | worse than 1.2 in the paper too |

Write `lambda=0.5` or `lambda_=0.5`. Mislabelled pairs cost dearly at any lambda: towards u = -infinity
every member but lr has a weight that grows like e^((1+lambda)|u|). With noisy labels stay at -1/2 and set
`r_max`, or take `robust` or `cdpo`. Values below -1/2 mirror those above it (lambda and -1 - lambda are one
loss for sba).

## How to choose the clip and the mixture

- `r_min` ends the push of pairs that are already separated: 0.01 stops at u = 4.6. It is 0.01 by default
  where lambda >= 0, since the loss has no lower bound there. The paper used 0.003 to 0.025.
- `r_max` ignores pairs that the policy has badly the wrong way round, as outliers: 30 stops at u = -3.4.
  They are never repaired, so keep it wide (30 to 100) and watch `bpo/clipped_r_max`.
- `mix_weight` w mixes w * sba + (1 - w) * lr on the same clipped u. The paper's SimPO runs used 0.05 to
  0.5; a small w is DPO (or SimPO) with a touch of BPO.
- Loss values with lambda >= 0 are negative and unbounded. Judge a run by `rewards/accuracies`, never by the
  loss.

## Other ratios

`ratio=simpo` makes u the SimPO margin (no reference; give `beta` of 2 to 10 and `gamma`), with s adjusted
to match at R = e^gamma. `ratio=fdpo` and `ratio=fpo` take `f`. Only the ratio changes; all of the above
holds for u.

## What was measured

The paper's claims in miniature are in [reproductions](../reproductions.md): the theory (one optimum,
gradient scale) holds exactly. Quality does not follow the paper throughout: SBA(0) wins more than DPO with
few wrong labels, SBA(1.2) wins less, and large lambdas pay for wrong labels. With a small language model no
difference to DPO stands out from the noise.

## Relations

h = lr is DPO; on the ratios it is SimPO, f-DPO and the winner's term of f-PO. Under Adam without a norm
clip ba and sba are one method, since a constant factor cancels; prefer sba. f-DPO and f-PO change the
optimum, BPO does not.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="bpo",
    title="Bregman preference optimization",
    modality="any",
    paper=Paper(
        title="Preference Optimization by Estimating the Ratio of the Data Distribution",
        authors="Yeongmin Kim, Heesun Bae, Byeonghu Na, Il-Chul Moon",
        year=2025,
        arxiv="2505.19601",
        venue="NeurIPS 2025",
    ),
    summary=(
        "Matches the likelihood ratio of two responses by a Bregman divergence: DPO's optimum, another "
        "weight per pair."
    ),
    use_when=(
        "You run DPO (or SimPO) already and want a knob for how much confident pairs count, at the same cost "
        "and optimum. Start at lambda = -0.5; sweep lambda upwards only with clean labels."
    ),
    failure_signs=(
        "An error about an infinite loss: set r_max (30 or 100). Grad norm or margins explode with lambda >= "
        "0: add warm-up, lower lambda, raise r_min. `bpo/clipped_r_min` near 1: nearly all pairs are done "
        "and teach nothing more; stop, or lower r_min. Accuracy falls below DPO's: labels are noisy; use "
        "lambda = -0.5 and r_max."
    ),
    papers_config={
        "HH dialogue (Pythia-2.8B)": (
            "lambda 1.2, r_min 0.01, beta 0.1, batch 64, optim rmsprop, learning_rate 5e-7, and from DPO's "
            "code warmup_steps 150, max_grad_norm 10"
        ),
        "TL;DR (GPT-J)": "lambda -0.5, r_min 0.025, beta 0.5, batch 64, optim rmsprop, learning_rate 5e-7",
        "Mistral-7B": "lambda -0.5, r_min 0.003, batch 64, learning_rate 8e-7 (beta is not stated)",
        "Mistral-7B, ratio simpo": (
            "lambda -0.5, r_min 0.01, r_max 30, mix_weight 0.3, beta 2, gamma 1.6, learning_rate 3e-7, batch "
            "128"
        ),
        "Llama-3-8B-Base, ratio simpo": (
            "lambda -0.5, r_min 0.01, r_max 30, mix_weight 0.5, beta 2, gamma 1, learning_rate 6e-7, batch "
            "128"
        ),
        "Llama-3-8B-Instruct, ratio simpo": (
            "lambda -0.5, r_min 0.01, r_max 100, mix_weight 0.05, beta 10, gamma 3, learning_rate 1e-6, "
            "batch 128"
        ),
        "small data sets": "leave out the 150 warm-up steps, or the run may end before the warm-up does",
    },
)
