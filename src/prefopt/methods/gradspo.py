"""GradSPO reads SPO as a noisy estimate of the judge's gradient, and learns from that estimate directly.

The noises of the best and the worst candidate differ, on average, along the gradient of the judge's
score, whatever the gradient's size; everything else in the difference is noise. SPO pushes the prediction
along it with a weight over time that comes from the step's density by accident. GradSPO pulls the
prediction to a guided target instead, with a weight that is chosen, half the noise, and an average of
past policies as anchor and sampler.

```text
n        = (e_best - e_worst)/2                       k_t = g sqrt(1 - abar_t),  g = 0.5
target_w = eps_ema - k_t n      target_l = eps_ema + k_t n       no gradient
q(p, y)  = -mean over latent elements of (p - y)^2
rho_w    = q(eps_theta, target_w) - q(eps_ref, target_w),  rho_l likewise
loss     = -log sigma(beta [clip(rho_w) - clip(rho_l)])   clip to [log(1 - clip_eps), log(1 + clip_eps)]
```

All three models see the same x_t, with guidance inside the loss.

## What the algebra says

Where nothing is clipped, the anchor and the halved noise cancel, and the margin is -2 g sqrt(1 - abar_t)
mean[(e_best - e_worst)(eps_theta - eps_ref)]: SPO's, with this weight over time in place of SPO's
b_t/sigma_t. Averaging the noise and the moving anchor act through the clip alone; the moving average acts
as sampler too. The tests hold these identities.

## How to read the logs

- `step_dpo/clipped_both` is the share of pairs without any gradient. There is no restoring force outside
  the clip.
- Follow the judge's mean score, the clipped shares and the margin. Accuracy near 1 is not a sign of
  success.

## Before you compare it with SPO

Sweep the learning rate of both. In the vector world of [reproductions](../reproductions.md) it was level
with SPO at 3e-5, behind at 1e-5, and overshot from 6e-5 on; in their best rounds the two were level.

## Relations

`spo` with another likelihood; the objective, `step_dpo`, is shared with `lpo` and `d3po`. `lpo` improves
the judge, this method the use made of it.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="gradspo",
    title="Gradient-guided stepwise preference optimization",
    modality="text_to_image",
    samples="steps",
    likelihood="guided",
    objective="step_dpo",
    paper=Paper(
        title="A Gradient Guidance Perspective on Stepwise Preference Optimization for Diffusion Models",
        authors="Joshua Tian Jin Tee, Hee Suk Yoon, Abu Hanif Muhammad Syarubany, Eunseop Yoon, Chang D. Yoo",
        year=2025,
        openreview="d6lIOnvOX2",
        venue="NeurIPS 2025",
    ),
    summary="Pulls the noise prediction along the difference of the best and the worst candidate's noise.",
    use_when=(
        "You would use `spo` (prompts and a judge of images, no pairs) and see late denoising steps "
        "clipped or training unstable. It needs memory for a third set of adapters, the moving average."
    ),
    failure_signs=(
        "`step_dpo/clipped_both` grows towards 1: the policy ran out of the clip and nothing brings it "
        "back (in a prototype rewards fell without bound at 3e-4); lower the learning rate. Few pairs are "
        "kept: lower the threshold. The margin stays 0: g is 0, or all scores are equal. An error about "
        "sigma: eta must be above 0, or no candidates differ."
    ),
    defaults={
        "beta": 10.0,
        "clip_eps": 0.1,
        "learning_rate": 6e-05,
        "lr_scheduler_type": "constant",
        "weight_decay": 1e-4,
        "guidance_scale": 5.0,
        "num_inference_steps": 20,
        "candidates": 4,
        "threshold": 0.3,
        "first_compared_step": 4,
        "grad_scale": 0.5,
        "sampler": "ema",
        "ema_decay": 0.9,
        "use_peft": True,
        "lora_r": 4,
        "lora_alpha": 4,
    },
    papers_config={
        "source": "the released code; only the paper's abstract was at hand, so no table of it is quoted",
        "SD 1.5": (
            "beta 10, clip_eps 0.1, learning_rate 6e-5, lora_r 4, lora_alpha 4, batch 40 (4 GPUs x 10), "
            "grad_scale 0.5, ema_decay 0.9 (plain recursion, no warm-up), candidates 4, threshold 0.3, "
            "first compared step 4 of num_inference_steps 20, eta 1, guidance_scale 5, 4000 prompts, 10 "
            "epochs, float16"
        ),
        "SDXL": (
            "learning_rate 1e-5, lora_r 64, lora_alpha 64, batch 16 (4 GPUs x 1 x 4 accumulated), "
            "threshold 0.4, otherwise the same"
        ),
    },
)
