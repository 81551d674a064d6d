"""Diffusion-DPO is DPO for image diffusion: likelihoods become denoising errors.

The likelihood of an image under a diffusion model is intractable. Its lower bound is a sum of denoising
errors over noise levels; one level t and one noise, drawn anew each time and **shared by both images**,
estimate the difference that DPO needs.

```text
MSE(x) = mean over latent elements of (eps - eps_theta(x_t, t, prompt))^2       rho = MSE_ref - MSE_theta
loss   = -log sigma((beta/2) (rho_w - rho_l))
```

MSE is a mean, so beta does not depend on the resolution.

| where | beta | factor | the same here |
|---|---|---|---|
| authors' code, diffusers' SDXL script | 5000 | 1/2 | 5000 |
| diffusers' SD script | 2500 | 1 | 5000 |
| squared errors summed over SD 1.5's 16384 elements | 0.153 | 1 | 5000 |

## How to read the logs

- The training loss hovers around 0.69 and looks like noise while images get better: t and the noise
  decide most of its value. Read the evaluation, whose t and noise are fixed, and images of fixed prompts.
- `rewards/chosen` and `rewards/rejected` are (beta/2) rho. The usual picture is that both fall, the
  rejected one faster: the margin grows because losers get worse, not because winners get better.
  `displacement` is the share of winners whose error is above the reference's.
- `logps/chosen` and `logps/rejected` are -MSE of the policy.
- `rewards/accuracies` starts at 0.5: equal errors count one half. The authors' code counts them as wrong.

## Ties

Pick-a-Pic's ties (`label_0` of 0.5) are an outcome of their own: drop them, split them, or train with
`dpo_rk`, which works on images too (with beta 2500: it has no half). diffusers' scripts take them for
wins of the first image.

## Relations

`dpo` with half the beta, on another likelihood. `mapo` needs no reference, `diffusion_kto` no pairs.
`spo`, `lpo` and `gradspo` compare single denoising steps of the policy's own samples, `d3po` the steps of
whole trajectories. Summed with `sft` it keeps the winner's error down, if the weight is of the size of
beta: `diffusion_dpo+500*sft`.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="diffusion_dpo",
    title="Diffusion-DPO",
    modality="image",
    paper=Paper(
        title="Diffusion Model Alignment Using Direct Preference Optimization",
        authors=(
            "Bram Wallace, Meihua Dang, Rafael Rafailov, Linqi Zhou, Aaron Lou, Senthil Purushwalkam, "
            "Stefano Ermon, Caiming Xiong, Shafiq Joty, Nikhil Naik"
        ),
        year=2023,
        arxiv="2311.12908",
        venue="CVPR 2024",
    ),
    summary="DPO with the denoising error at one shared noise level in place of log-likelihoods.",
    use_when=(
        "You have pairs of images with a winner, such as Pick-a-Pic, and no image judge: the baseline of "
        "image methods. It is offline and needs no sampling, but many comparisons."
    ),
    failure_signs=(
        "`logps/chosen` falls for long: the model gets worse at both images; lower the learning rate, "
        "raise beta, or add the winner's error (diffusion_dpo+500*sft). Loss spikes or images turn to "
        "noise: the learning rate is too high for the batch. Loss exactly 0: float16 overflowed; use "
        "float32 or bf16. The paper's results are not reached with few GPUs: its effective batch is 2048."
    ),
    defaults={"beta": 5000.0, "lr_scheduler_type": "constant_with_warmup", "weight_decay": 0.01},
    papers_config={
        "SD 1.5": (
            "beta 5000 in the code (2000 in the paper), batch 2048 (16 GPUs x 1 x 128), 2000 steps, "
            "warmup_steps 500, adamw, weight_decay 0.01, max_grad_norm 1, full fine-tuning in float16, "
            "captions dropped with probability 0.2, random flips"
        ),
        "SDXL": "beta 5000, batch 2048, warmup_steps 200, Adafactor, gradient checkpointing",
        "learning rate": (
            "1e-8 times the effective batch: 2.048e-5 at 2048, 6e-7 at 64. The paper prints a value a "
            "thousand times smaller; the script's is the one that runs. No default here, since it depends "
            "on your batch"
        ),
        "diffusers' scripts": "LoRA with lora_r 8, lora_alpha 8; called highly experimental by their authors",
    },
)
