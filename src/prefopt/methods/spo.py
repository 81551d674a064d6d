"""SPO compares single denoising steps: which of K next steps from one noisy image is the best?

A label on two finished images says little about each of their steps. SPO samples K candidates for the
next, less noisy latent from the same x_t, lets a judge that knows the noise level rank them, and applies
DPO to the log-density of that one step. The trajectory goes on from a random candidate, not from the
winner.

```text
x^i  = mu_theta(x_t) + sigma_t z^i,  i = 1..K           w = argmax, l = argmin of the judge's scores
keep the pair if softmax(s_w, s_l)_w - softmax(s_w, s_l)_l = tanh((s_w - s_l)/2) > threshold
rho  = mean over latent elements of log pi_theta(x | x_t) / pi_ref(x | x_t)
loss = -log sigma(beta [clip(rho_w) - clip(rho_l)])      clip to [log(1 - clip_eps), log(1 + clip_eps)]
```

Guidance is part of the policy: predictions are guided in sampling and in training, for the reference too.
rho is a mean over elements, and beta belongs to that convention. Where nothing is clipped, rho_w - rho_l
is linear in the prediction, since both sides share x_t and the mean of the step.

## How to read the logs

- `step_dpo/clipped_chosen`, `step_dpo/clipped_rejected`: share of sides outside the clip, which have no
  gradient, also where they lie on the wrong side. `step_dpo/clipped_both` is the share of pairs that
  teach nothing.
- Accuracy and ratios say little: users of the authors' code saw a win ratio of about 1 throughout, and
  its author says to look at the judge's mean score instead.
- The share of pairs kept tells whether the threshold fits the judge.

## Relations

One objective, `step_dpo`, is behind `spo`, `lpo`, `gradspo` and `d3po`. `lpo` judges the noisy latent
itself, `gradspo` replaces the step's density by a guided target, `d3po` labels all steps of two finished
images alike. With `clip_eps=null` the loss is DPO's.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="spo",
    title="Step-by-step preference optimization",
    modality="text_to_image",
    samples="steps",
    likelihood="transition",
    objective="step_dpo",
    paper=Paper(
        title=(
            "Aesthetic Post-Training Diffusion Models from Generic Preferences with Step-by-step "
            "Preference Optimization"
        ),
        authors=(
            "Zhanhao Liang, Yuhui Yuan, Shuyang Gu, Bohan Chen, Tiankai Hang, Mingxi Cheng, Ji Li, Liang "
            "Zheng"
        ),
        year=2024,
        arxiv="2406.04314",
        venue="CVPR 2025",
    ),
    summary="DPO on single denoising steps: best against worst of K candidates from the same noisy image.",
    use_when=(
        "You have prompts and a judge of images (aesthetics, PickScore) rather than labelled pairs, and "
        "want better details for little compute. With a judge that reads latents prefer `lpo`."
    ),
    failure_signs=(
        "Few pairs are kept: the threshold is too strict for your judge, since scores of siblings lie "
        "close; lower it. `step_dpo/clipped_both` grows towards 1: the policy drifted out of the clip and "
        "no gradient brings it back; lower the learning rate. Prompt adherence falls while looks "
        "improve: the judge rewards looks only. The earliest, noisiest steps (t above 750) made results "
        "much worse in the paper: a pixel judge cannot read them; begin at the fifth of 20 steps. An "
        "error about sigma: sampling must be stochastic (eta > 0)."
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
        "use_peft": True,
        "lora_r": 4,
        "lora_alpha": 4,
    },
    papers_config={
        "SD 1.5": (
            "beta 10, clip_eps 0.1, learning_rate 6e-5, lora_r 4, batch 40 (4 GPUs x 10), candidates 4, "
            "threshold 0.3, first compared step 4 of num_inference_steps 20, eta 1, guidance_scale 5, "
            "4000 prompts, 10 epochs, float16"
        ),
        "SDXL": (
            "learning_rate 1e-5, lora_r 64, batch 16 (4 GPUs x 2 x 2 accumulated), candidates 2 with 3 "
            "further steps before judging, threshold 0.4"
        ),
        "judge": (
            "PickScore's CLIP-H made to know the noise level, on decoded one-step predictions; "
            "learning_rate 3e-6 (SD 1.5) or 1e-6 (SDXL), weight_decay 0.3"
        ),
        "max_grad_norm": (
            "1 in the configuration, but the authors' code never clips: its parameter list is used up"
        ),
    },
)
