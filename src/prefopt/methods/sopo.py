"""SoPo takes the winner from the data and samples the loser from the model that is being trained.

Pairs that were made once list a few bad samples, and all that training can do is avoid these few. Pairs of the model's own
samples compare what it finds likely already, and their losers are often good. So the winner is the sample that the data have for a
text, and the loser the worst of K samples drawn now. A loser that a judge finds good is vetoed, and winners weigh more where no
sample resembles them.

```text
x_l    = argmin_k r(x^k, c)                    K samples of the policy, r a judge that reads text and sample
S      = min_k sim(x_w, x^k)                   in the judge's embedding
m      = 1 if r(x_l, c) < tau else 0
loss   = -log sigma( beta [(C - S) rho_w - m rho_l] )           rho = -T (E_theta - E_ref)
```

E is the denoising error at one timestep and noise that both sides and both models share, a mean over elements; T, the number of
train timesteps, is `error_scale: steps`. `mean` is the released code's scale, at which the loss is linear, so that nothing bounds how
far losers are pushed away; `sum` counts every element.

## Rows

Single good samples will do: `prompt, motion` (or a folder of HumanML3D), `prompt, image, label`. Of pairs the winner is taken; the
loser serves evaluations. Nothing is generated before training.

## tau

A judge's scores have a scale of their own, so tau is not portable: by default it is set so that half of the starting model's
losers are kept (`tau_quantile: 0.5`). `tau: 0.45` is the paper's, for TMR's (cos + 1) / 2. The start check also says how well the judge
tells matched data from shuffled ones: below 0.7 the run stops, since losers would be chosen at random.

## Other courses

`pairs: online`, `offline`, `offline_data`, `naive` make the pairs that the paper compares with; those of samples alone need
`variant: dsopo`, which is DPO. `prefopt train sft` on the same rows is the control that the paper has not: report it, too.

## How to read the logs

- `sopo/kept` (and `collect/kept`): share of losers that are learned from. Near 0 the run is weighted fine-tuning on winners.
- `sopo/slope` is sigma(-z), mean over comparisons: within 0.5 +- 0.005 throughout, the loss is linear (raise `error_scale` or beta);
  near 0 it is saturated.
- `collect/rejected_reward` and `collect/reward`: what the judge thinks of the policy's losers and samples; both rise.
- `collect/similarity` is S, `sopo/weight` C - S.

## Cost

Sampling is all of it: K times the reverse steps, against 8 forward passes for the loss. All K candidates of a batch are one
forward pass a step. `reuse_candidates: 4` makes four updates of one round (then a step is four updates); `candidate_steps: 10`
draws by fewer reverse steps.

## Relations

With `variant: dsopo` it is `dpo` on fresh losers; with every loser vetoed, weighted `sft` inside a log-sigmoid. `usopo` leaves the weight
out, `sopo_no_filter` the veto. It runs on images as on motions, with any scorer as judge; without embeddings S is 0.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="sopo",
    title="Semi-online preference optimization",
    modality="candidates",
    samples="semi_online",
    paper=Paper(
        title="SoPo: Text-to-Motion Generation Using Semi-Online Preference Optimization",
        authors="Xiaofeng Tan, Hongsong Wang, Xin Geng, Pan Zhou",
        year=2024,
        arxiv="2412.05095",
        venue="NeurIPS 2025",
    ),
    summary="Winners from the data, losers sampled now and vetoed where they are good.",
    use_when=(
        "You have a pretrained diffusion model, the data that it was trained on (or cleaner ones), a judge that reads texts, and "
        "no pairs. Compare with `sft` on the same rows: in the motion world it aligned as well in as many updates, at a seventh of the "
        "cost, and better in four times as many; SoPo's samples were more like the data (FID) in as many."
    ),
    failure_signs=(
        "The run stops because the judge does not recognise the data: its units or normalisation differ from what it was trained "
        "on. `sopo/kept` is 0 or 1 from the start: tau is out of the judge's range, leave it out. `sopo/slope` stays at 0.5: the "
        "linear regime, where losers are pushed away without bound; set error_scale=steps. Samples get worse while rewards of "
        "winners rise: lower the learning rate, since forgetting is easier than learning."
    ),
    defaults={
        "beta": 1.0,
        "C": 2.0,
        "candidates": 2,
        "error_scale": "steps",
        "learning_rate": 1e-5,
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "guidance_scale": 2.5,
    },
    papers_config={
        "MDM (fast)": "50 cosine steps, K 4, tau 0.45, C 2, beta 1, batch 64, AdamW, 100 minutes on one RTX 4090D",
        "MLD": "K 2, tau 0.45, C 2, beta 1; denoiser alone, in the latent space; samples decoded to be judged",
        "released code": "K 2, error_scale mean, four noises where one is needed, networks in train mode; see docs/motion.md",
        "learning rate": "not given; the released script has 1e-4, the authors advise a small one",
        "FLUX": "HPSv2 as judge, lora_r 128, lora_alpha 256, 8 GPUs",
    },
)
