"""MaPO needs no reference: the winner's denoising error is lowered, and kept below the loser's.

```text
phi(x) = x / (e^x - 1)                          from 1 at no error down to 0
z      = T [phi(c MSE_w) - phi(c MSE_l)]        c = snr_value, T = num_train_timesteps
loss   = MSE_w - beta log sigma(z)
```

Both images of a pair share the noise level and the noise, as in `diffusion_dpo`. phi is bounded, so an
error cannot be pushed up for ever to gain margin. Here beta weighs the preference term; it does not scale
the margin, T does.

## How to read the logs

- `logps/chosen` is -MSE of the winner, and should rise: that is the first term.
- `mapo/margin` is z, in units in which the sigmoid saturates beyond 5. Errors of 0.1 that differ by 1%
  already give 0.25. z depends on the images' own difficulty, which no reference takes away, so its mean
  need not start at 0 and `rewards/accuracies` need not start at 0.5.
- The loss hardly moves while the model learns: MSE_w is dominated by the noise level that was drawn.

## Relations

`sft` plus a preference term without reference, as `contrastive_po` and `orpo` are for text. Near zero
error z = (c T/2)(MSE_l - MSE_w), a logistic loss on errors with a beta of 250. `diffusion_dpo` subtracts
a reference instead.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="mapo",
    title="Margin-aware preference optimization",
    modality="image",
    paper=Paper(
        title="Margin-aware Preference Optimization for Aligning Diffusion Models without Reference",
        authors="Jiwoo Hong, Sayak Paul, Noah Lee, Kashif Rasul, James Thorne, Jongheon Jeong",
        year=2024,
        arxiv="2406.06424",
        venue="AAAI 2026",
    ),
    summary="Fine-tuning on the winner plus a bounded margin between denoising errors; no reference model.",
    use_when=(
        "The images you want are far from what the model makes now (a style, a subject), so that staying "
        "near a reference would hold you back; or there is no memory for one."
    ),
    failure_signs=(
        "`logps/chosen` falls: the preference term wins over fine-tuning; lower beta. Nothing ties the "
        "model to its start: look at images of unrelated prompts for what it forgets, and stop early. "
        "`mapo/margin` far beyond 5 everywhere: pairs are too easy (real against generated?) and teach "
        "only the fine-tuning term."
    ),
    defaults={"beta": 0.1, "learning_rate": 1e-05},
    papers_config={
        "authors' example (SDXL)": (
            "beta 0.1, snr_value 0.5, learning_rate 1e-5, batch 16 (8 x 2 accumulated), 2000 steps, float16"
        ),
    },
)
