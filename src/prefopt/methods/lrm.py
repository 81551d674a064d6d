"""A latent reward model scores noisy latents: the judge that `lpo` needs, trained on image pairs and ties.

Its features are those of a diffusion model: the down and middle blocks read x_t at noise level t, the
text encoder reads the prompt, and the score is a scaled cosine of the two. Training shows it both images
of a pair at the same random t, with independent noise.

```text
V     = W_v [V_down ; V_mid(empty) + gs (V_mid(prompt) - V_mid(empty))]      pooled over space; gs = 7.5
s     = exp(tau) cos(V, W_t f_text)
loss  = -log sigma(s_w - s_l) for a win
      = -[log sigma(d) + log sigma(-d)]/2 - log 2, d = s_w - s_l, for a tie: least, and 0, at equal scores
```

Votes (win, lose, tie) mix the three losses. The authors weigh each pair by one over the number of pairs
of its prompt: that is the `weight` of a row, not a part of the loss.

Of flow models (SD3) the features are the mean over image tokens after three quarters of the transformer's
blocks, the text encoders stay frozen, and t is a noise level of the sampler, the first of which, noise
alone, is left out. The paper has a table row for SD3 and no code: where it is silent, this is our reading.

## Data

The paper drops pairs whose winner loses clearly in aesthetics, CLIP score or VQAScore, since noise may
then turn the preference around. It keeps a win if the winner is at most 0.5 behind in aesthetics and not
behind in the other two (168,539 of 511,840), and a tie if all three are close (8,537 of 71,907). Keeping
only winners that are ahead everywhere makes the judge love aesthetics; looser rules make it love text
agreement.

## How to read the logs

- `rewards/chosen` and `rewards/rejected` are mean scores, `rewards/margins` their gap. Scores are at
  most exp(tau), 14 at the start.
- `rewards/accuracies` near 0.65 to 0.70 is what the paper's judges reach on Pick-a-Pic; equal scores
  count one half. Read it by noise level: near chance at the noisiest step is normal.
- `ties/loss` starts at 0 if scores start equal, and should stay small.

## Relations

Bradley-Terry with PickScore's tie rule; `dpo` with beta 1, no reference and scores for log-ratios, plus
ties. `dpo_rk` and `dpo_d` model how often equals tie, this loss only asks ties to score alike. SPO's
judge is trained by this loss too, on decoded predictions and with the same noise for both images.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="lrm",
    title="Latent reward model",
    modality="text_to_image",
    likelihood="reward",
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
    summary="Bradley-Terry with ties on scores of noisy latents: trains the judge that lpo uses.",
    use_when=(
        "Before `lpo`, if you have labelled image pairs and no judge for your VAE's latents. One judge "
        "serves every policy with the same VAE and scaling."
    ),
    failure_signs=(
        "Accuracy stays at 0.5 at all noise levels: latents are not scaled as the model expects, or "
        "labels are turned. It rises on training pairs only: too many epochs over few pairs; stop at the "
        "best held-out accuracy, as the authors do. Good at low noise only: the noise level is not drawn "
        "from the steps that lpo uses. The policy of a later lpo run follows looks and ignores the "
        "prompt: raise gs, or filter pairs by text agreement."
    ),
    defaults={"learning_rate": 1e-05, "weight_decay": 0.3},
    papers_config={
        "SD 1.5": (
            "learning_rate 1e-5, weight_decay 0.3, warmup_steps 500, batch 128 (8 GPUs x 16 pairs), 4000 "
            "steps, bf16"
        ),
        "SDXL": "warmup_steps 1000, batch 32 (8 GPUs x 4 pairs), 8000 steps, otherwise the same",
        "both": (
            "gs 7.5, tau starts at 2.6592, t uniform over the 20 sampling steps (1, 51, ..., 951), "
            "max_grad_norm 1, best accuracy at t = 1 kept, checked every 100 steps; trained are U-Net "
            "blocks, text encoder, projections and tau"
        ),
    },
)
