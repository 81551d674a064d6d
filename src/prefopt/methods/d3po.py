"""D3PO applies one preference between two finished images to every denoising step that made them.

Denoising is a decision process of T steps whose reward comes at the end. If an image is preferred, each
of its steps is taken to be better than the step of the other image at the same time.

```text
sample N images of a prompt, keep every step x_t -> x_{t-1}; compare finished images (people, or a scorer)
rho  = mean over latent elements of log pi_theta(x_{t-1} | x_t) / pi_ref(x_{t-1} | x_t), a step of one image
loss = -log sigma(beta [clip(rho_w) - clip(rho_l)])      at every step; clip to log(1 -+ clip_eps)
```

The two sides start from different noisy images, so their means differ and nothing cancels, unlike in
`spo`.

## How to read the logs

`step_dpo/clipped_chosen` and `step_dpo/clipped_rejected` are the shares of steps outside the clip,
without gradient. With beta 0.1 and the clip the loss can move from log 2 by 0.01 at most: judge a run by
images and the scorer.

## Relations

`step_dpo` on steps of two trajectories; `spo` and `lpo` compare steps that share their starting point,
with a label for each step. `diffusion_dpo` uses labelled images that need not be the policy's own, by
noising them again.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="d3po",
    title="Direct preference for denoising diffusion policy optimization",
    modality="text_to_image",
    samples="trajectories",
    likelihood="transition",
    objective="step_dpo",
    paper=Paper(
        title="Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model",
        authors=(
            "Kai Yang, Jian Tao, Jiafei Lyu, Chunjiang Ge, Jiaxin Chen, Qimai Li, Weihan Shen, Xiaolong "
            "Zhu, Xiu Li"
        ),
        year=2023,
        arxiv="2311.13231",
        venue="CVPR 2024",
    ),
    summary="One label on two sampled images is applied to all of their denoising steps.",
    use_when=(
        "People or a black-box scorer can rank finished images of the current model, and nothing can "
        "judge intermediate steps."
    ),
    failure_signs=(
        "Learning is slow: one label is spread over all steps, most of which did not decide it; more "
        "images a prompt, or `spo` and `lpo` where a judge of steps exists. `step_dpo/clipped_both` near "
        "1: the policy left the clip and nothing pulls it back; lower the learning rate. The loss stays "
        "at 0.693: expected at beta 0.1; look at the scorer instead."
    ),
    defaults={
        "beta": 0.1,
        "clip_eps": 0.1,
        "learning_rate": 3e-05,
        "lr_scheduler_type": "constant",
        "weight_decay": 1e-4,
        "guidance_scale": 5.0,
        "num_inference_steps": 20,
        "candidates": 7,
        "use_peft": True,
    },
    papers_config={
        "authors' code (SD 1.5)": (
            "beta 0.1, clip_eps 0.1, learning_rate 3e-5, LoRA, batch 1, 400 epochs, 7 images a prompt, "
            "every pair with different ratings, num_inference_steps 20, eta 1, guidance_scale 5, "
            "activation checkpointing"
        ),
    },
)
