"""Diffusion-KTO learns from single images labelled good or bad.

```text
rho  = MSE_ref - MSE_theta, at one random noise level and noise for each image
Q    = max(0, mean rho of the batch), over all processes, no gradient
z    = beta (rho - Q) for a good image, beta (Q - rho) for a bad one
loss = w_y (1 - U(z))
```

| `utility` | U(z) | what it means |
|---|---|---|
| `sigmoid` (default) | sigma(z) | far gains and far losses both stop to matter, as in Kahneman and Tversky's theory |
| `loss_averse` | log sigma(z) | images that are badly wrong keep pulling |
| `risk_seeking` | -log sigma(-z) | images that are already right keep pulling; no lower bound |

## How to read the logs

`kto/z0` is Q. It is 0 while the batch's mean log-ratio is negative, which is common at first.
`rewards/chosen` and `rewards/rejected` are beta rho of good and bad images; `rewards/margins` is their
difference.

## Relations

`kto` with another reference point: that one scores answers under other rows' prompts, this one takes the
mean over the batch itself, good and bad alike, so no image is scored twice. `loss_averse` is `bco` with Q
for its shift, up to a constant. With pairs at hand see `diffusion_dpo`; pairs are accepted here and taken
apart.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="diffusion_kto",
    title="Diffusion-KTO",
    modality="image",
    paper=Paper(
        title="Aligning Diffusion Models by Optimizing Human Utility",
        authors="Shufan Li, Konstantinos Kallidromitis, Akash Gokul, Yusuke Kato, Kazuki Kozuka",
        year=2024,
        arxiv="2404.04465",
        venue="NeurIPS 2024",
    ),
    summary="Likes and dislikes of single images, each judged against the batch's mean log-ratio.",
    use_when="Feedback on images comes as likes and dislikes without pairs.",
    failure_signs=(
        "The batch is tiny: Q is then mostly this batch's noise; enlarge per_device_train_batch_size (Q "
        "is not taken over accumulation steps). All losses near 0.5 and nothing moves: beta is too small "
        "for errors of about 1e-4. Losses at 0 or 1 from the start: beta is too large, and gradients "
        "vanish. One label dominates: set desirable_weight and undesirable_weight. A falling loss with "
        "risk_seeking proves nothing, since it has no lower bound."
    ),
    defaults={"beta": 1000.0, "learning_rate": 1e-07, "lr_scheduler_type": "constant_with_warmup"},
    papers_config={
        "authors' code (SD 1.5)": (
            "beta 1000, both weights 1, learning_rate 1e-7, warmup_steps 200, 20000 steps, batch 8 (4 "
            "GPUs x 2), share of good images 0.8, full fine-tuning or LoRA"
        ),
        "data": "Pick-a-Pic taken apart into single images with a binary label",
    },
)
