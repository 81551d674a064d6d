"""Condition preference optimization: a ControlNet learns to follow its control image by comparing conditions, not images.

A ControlNet follows its control image imperfectly. Comparing two *images* under one condition teaches little about that: they
differ in everything. This method keeps **one image and one noise** and compares two *conditions*: the true one, c_w, must
explain the image better than one that is a little wrong, c_l. What does not depend on the condition cancels, and there is a
signal at every noise level, also where layout is decided.

```text
Delta = l(c_w) - l(c_l)          l(c) = mean over latent elements of (eps - eps_theta(x_t, t, prompt, c))^2
u     = (beta/2) (Delta - Delta_ref)
gated     (1-s) w max(0, Delta + margin) + s (1-w) max(0, margin - Delta)      w = sigma(u), no gradient
sigmoid   -(1-s) log sigma(-u) - s log sigma(u)                                divided by beta/2
loss      = one of these + diffusion_weight l'(c_w)
```

l' is the error of the true condition under noise and a timestep of its own (`diffusion_draw: own`, as released; `prompt_dropout` and
`condition_dropout` apply to it), or the pair's (`pair`: a third less to compute, the same expectation).

`form: gated` is the released default, `form: sigmoid` what the derivation leads to. While |Delta| is below the margin their
gradients are the same; beyond it the gate closes, and the example is left alone.

## Where the losing condition comes from

From the model itself: sample an image under the true condition, and detect the condition of what came out. What the model
made of c_w is a natural hard negative. A row holds `prompt`, `image`, `chosen_condition` and `rejected_condition`;
`prefopt build conditions` makes such rows of `prompt`, `image` and `condition`. With `losing_condition: online` they are made
anew for every step, by the model as it is.

## How to read the logs

- `condition_po/delta` is Delta, negative where the true condition explains the image better. It should fall.
- `condition_po/gate_open` near 0 means that hardly any example teaches: the margin is too small for this model. Take about the
  90th percentile of |Delta| at the start.
- `condition_po/weight` is w: near 1/2 at the start, towards 0 as examples are learned.

## Relations

On pairs of images under one condition (`chosen_image`, `rejected_image`, `condition`) the sigmoid form is `diffusion_dpo` for
ControlNets, the paper's baseline. `controlnet_pp` (the consistency reward) and `sft` (ControlNet's own loss) are its others, and the
first is the stage before: `consistency_weight` adds it here. Ties, soft votes and every loss of log-ratios alone work on conditions too: `dpo_rk`, `ipo`, `bpo`.

The name is not CPO, which in other libraries is contrastive preference optimization (here `contrastive_po`).
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="condition_po",
    title="Condition preference optimization",
    modality="control",
    paper=Paper(
        title="CPO: Condition Preference Optimization for Controllable Image Generation",
        authors="Zonglin Lyu, Ming Li, Xinxin Liu, Chen Chen",
        year=2025,
        arxiv="2511.04753",
        venue="NeurIPS 2025",
    ),
    summary="One image, two control images: the true one must explain it better than a slightly wrong one.",
    use_when=(
        "You have a ControlNet that follows its control images roughly, and want it to follow them closely. It is a second "
        "stage: from a weak ControlNet, train on with the diffusion loss or a consistency reward first."
    ),
    failure_signs=(
        "`condition_po/gate_open` is near 0 from the start: the margin is too small for this model's errors, raise it, or take "
        "form=sigmoid. Images lose quality while delta falls: raise diffusion_weight or lower the learning rate. Nothing moves "
        "in half precision: at the paper's learning rates an update is lost in bf16 weights; keep float32."
    ),
    defaults={
        "beta": 5000.0,
        "margin": 0.01,
        "label_smoothing": 0.1,
        "diffusion_weight": 0.05,
        "learning_rate": 1e-8,
        "weight_decay": 1e-2,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 100,
    },
    papers_config={
        "source": "abstract, tables and released code; the paper's own equations were not at hand",
        "SD 1.5": (
            "beta 5000, margin 1e-2 (canny 5e-3, line art 3e-2), diffusion_weight 0.05 (line art 0.02, pose 0.1), "
            "label_smoothing 0.1, learning_rate 1e-8 (line art 3e-9, pose 1e-7), batch 64 (ADE20K, depth), 256 (COCO-Stuff, "
            "edges), 32 (pose), 2000 steps (ADE20K), 4000 (depth), 10000 (others), 512 pixels, EMA evaluated"
        ),
    },
)
