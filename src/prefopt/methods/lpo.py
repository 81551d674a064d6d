"""LPO learns from the best and the worst next denoising step, judged by the diffusion model itself.

Judging a noisy image with a pixel model takes a prediction of the clean image, a VAE decode and a
CLIP-sized model for every candidate, and fails at high noise. A latent reward model (`lrm`) is made of
the diffusion model's own down and middle blocks: it scores x_t directly, at every noise level. So LPO may
learn from all steps, the noisiest included, for a sixth of the sampling time.

```text
x^i  = mu_theta(x_t) + sigma_t z^i,  i = 1..K           w = argmax, l = argmin of the latent judge's scores
keep the pair if tanh((s_w - s_l)/2) > threshold_t
threshold_t = th_min + (sigma_t - sigma_min)/(sigma_max - sigma_min) (th_max - th_min)
rho  = mean over latent elements of log pi_theta(x | x_t) / pi_ref(x | x_t)
loss = -log sigma(beta [clip(rho_w) - clip(rho_l)])      clip to [log(1 - clip_eps), log(1 + clip_eps)]
```

The threshold is strictest at the noisiest step, where the step's sigma makes candidates differ most. The
trajectory goes on from a random candidate. The ratio clip is in the authors' code, not in the paper.

## How to choose beta and the threshold

In the paper beta from 20 to 500 hardly matters on SD 1.5 (PickScore 21.5 to 21.7); 5000 is too stiff
(20.95). rho is a mean over elements: 500 is 0.03 per element of SD 1.5's latent. There is no KL term;
beta, the clip, the LoRA rank and few epochs are all that holds the policy. Absolute thresholds belong to
one judge: 0.35 to 0.5 means a score gap of 0.73 to 1.10. If few pairs survive, lower the range rather
than training longer.

## How to read the logs

- `step_dpo/clipped_chosen`, `step_dpo/clipped_rejected` and `step_dpo/clipped_both`: sides and pairs
  without gradient.
- `rewards/chosen` is beta rho before the clip. Typical |rho| is 1e-4 to 1e-2; in half precision a
  difference of two log-probabilities has an error of 4e-3, so rho must be computed in float32.
- Log the kept pairs per noise level and the mean score: accuracy alone says little.

## Relations

`spo` is the same loss with a pixel judge, on the last 16 of 20 steps; `d3po` with one label for two whole
trajectories; `gradspo` with a guided target in place of the step's density. With `clip_eps=null` the loss
is DPO's.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="lpo",
    title="Latent preference optimization",
    modality="text_to_image",
    samples="steps",
    likelihood="transition",
    objective="step_dpo",
    paper=Paper(
        title="Diffusion Model as a Noise-Aware Latent Reward Model for Step-Level Preference Optimization",
        authors=(
            "Tao Zhang, Cheng Da, Kun Ding, Huan Yang, Kun Jin, Yan Li, Tingting Gao, Di Zhang, Shiming "
            "Xiang, Chunhong Pan"
        ),
        year=2025,
        arxiv="2502.01051",
        venue="NeurIPS 2025",
    ),
    summary=(
        "DPO on single denoising steps, judged in latent space at every noise level by the model's own "
        "blocks."
    ),
    use_when=(
        "You align SD 1.5, SDXL or alike from prompts with little compute, and have pairs to train a "
        "latent judge (`lrm`) or have one already, for the same VAE."
    ),
    failure_signs=(
        "No or few pairs are kept: the threshold does not fit this judge; lower it. "
        "`step_dpo/clipped_both` near 1: the policy left the clip and nothing pulls it back; lower the "
        "learning rate. Images get worse from the start: the judge was trained on another VAE's latents, "
        "or is told the wrong noise level. Scores rise while images all look alike: the judge is being "
        "exploited; stop after few epochs. An error about sigma: eta must be above 0. Unlike the released "
        "code, whose gradient clipping never acts, max_grad_norm acts here; null reproduces it."
    ),
    defaults={
        "beta": 500.0,
        "clip_eps": 0.1,
        "learning_rate": 5e-05,
        "lr_scheduler_type": "constant",
        "weight_decay": 1e-4,
        "guidance_scale": 5.0,
        "num_inference_steps": 20,
        "candidates": 4,
        "threshold": [0.35, 0.5],
        "threshold_rule": "sigma",
        "use_peft": True,
        "lora_r": 4,
        "lora_alpha": 4,
    },
    papers_config={
        "SD 1.5, SD 2.1": (
            "beta 500, learning_rate 5e-5 (6e-5 in the released configuration), lora_r 4, lora_alpha 4, "
            "batch 40 (4 GPUs x 10 pairs), 20 prompts a round (4 GPUs x 5), candidates 4, threshold 0.35 "
            "to 0.5, num_inference_steps 20, all of them compared, eta 1, guidance_scale 5, 4000 prompts, "
            "5 epochs"
        ),
        "SDXL": (
            "learning_rate 1e-5, lora_r 64, lora_alpha 64, batch 16 (4 GPUs x 4), 16 prompts a round, "
            "threshold 0.45 to 0.6, gradient checkpointing"
        ),
        "judge's noise level": (
            "that of the candidates in the paper; the released code gives it one step too noisy"
        ),
        "cost": (
            "23 (SD 1.5) and 92 (SDXL) A100 hours with the judge's training, against 80 and 234 for SPO, "
            "by each method's own recipe, not at equal quality"
        ),
    },
)
