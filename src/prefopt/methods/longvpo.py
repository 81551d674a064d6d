"""LongVPO teaches a model of short videos to read long ones, from short clips alone, and then from its own captions.

A model that was trained on short clips loses what stands in the middle of a long video, and nobody labels hours of video. So a
question is asked about one clip, the *anchor*, which is then hidden among others: the right answer is what the model says when it
is shown the anchor alone, the wrong one what it says of one of the others. The policy sees the whole video, the reference the
anchor:

```text
x    the whole video          x_a    its anchor alone          m = rho(y_w) - rho(y_l)
rho(y) = log pi(y | x, q) - log pi_ref(y | x_a, q)
loss   = -log sigma(beta m) - alpha log pi(y_w | x, q) / |y_w|
```

In the second stage the questions are about several scenes of real long videos, and both models see the whole of them.

## What an anchored reference means

Let gap = [R_w(x_a) - R_l(x_a)] - [R_w(x) - R_l(x)], R the reference's log-probabilities. Then m = m_full - gap: the loss is DPO with a
target margin of beta gap an example. The policy is to tell the answers apart in the long video as well as the reference does when it
is shown the place. So at the first step m = -gap, mostly below zero: a loss above log 2 and accuracies below one half at the start are
right, and `rewards/chosen` is no gain over the reference on the same input.

alpha = 0 is a trap here: without the second term a policy meets the target margin by making both answers less likely, and forgets what
it could do with short videos. beta = 0 leaves log 2 and the second term: learning from the chosen answers alone, the control that any
claim for the preference term has to be held against.

## Rows

`video` (a list of clips in order), `anchor` (index of the clip that holds the answer), `pinned` (index of the distractor that gave the
rejected answer), `pool` (clips that may stand in for the other distractors), `prompt`, `chosen`, `rejected`, and `reference_context`
(anchor in the first stage, full in the second). `prefopt build longvpo-1` and `longvpo-2` write them. In each epoch other distractors, another
order and another slot are drawn (`redraw_videos`), which costs nothing, since the reference does not see them. The rejected answer's
clip stays: without it that answer is no plausible error.

Frames are counted a clip (`video_frames`), the same whatever video it stands in, and every clip is prepared at a resolution of its
own. A row that is too long for `max_length` is shown in fewer frames, never cut.

## Two stages

With `stage2_data` both stages are trained in a row; the second starts from the first's weights, which are its reference, with a fresh
optimizer. Without it, one run on `data`: the first stage, or the second with the first's model. Rows of the second stage are best
written by the model of the first: train it, build, train again.

## How to read the logs

- `rewards/accuracies` starts below one half and rises above it. `sft` is the winner's negative log-likelihood a token.
- `displacement` counts winners that the policy finds less likely in the long video than the reference in the anchor: it starts high.

## What is known

In the paper InternVL3-8B gains 5.0 points on MLVU, 3.7 on LongVideoBench, 4.8 on LVBench and loses 0.4 on MVBench, three quarters of it in
the first stage; the second lowers LongVideoBench by 0.8. The paper's beta, alpha and learning rate could not be read: the defaults
here are those of InternVL's own preference training, scaled. `prefopt reproduce longvpo` says what holds in miniature.

## Relations

`dpo` on the same four numbers with alpha = 0. `rpo` (`dpo+sft`) with a reference that sees the whole video. Every other loss of text takes
the same rows, anchored reference included.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="longvpo",
    title="LongVPO",
    modality="vision",
    stages="twice",
    paper=Paper(
        title="LongVPO: From Anchored Cues to Self-Reasoning for Long-Form Video Preference Optimization",
        authors="Zhenpeng Huang, Jiaqi Li, Zihan Jia, Xinhao Li, Desen Meng, Lingxue Song, Xi Chen, Liang Li, Limin Wang",
        year=2026,
        arxiv="2602.02341",
        venue="NeurIPS 2025",
    ),
    summary="Clips hidden among others, a reference that sees the right clip alone, and the winner's likelihood.",
    use_when=(
        "A vision-language model is good at short videos and forgets what stands in the middle of long ones, and you have videos "
        "without labels."
    ),
    failure_signs=(
        "Accuracy on single clips falls, or both log-probabilities sink: alpha is too small. Accuracy depends on where the evidence "
        "stands: slots are not drawn evenly, or videos are not redrawn. The start loss is exactly log 2 in the first stage: the "
        "reference sees the whole video, look at reference_context. No gain over beta=0: the preference term adds nothing here."
    ),
    defaults={
        "beta": 0.1,
        "alpha": 1.0,
        "learning_rate": 5e-7,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "weight_decay": 0.05,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 32,
        "max_length": None,
    },
    papers_config={
        "InternVL3-8B": (
            "16 thousand examples in both stages, contexts up to 128 thousand tokens; beta, alpha, learning rate and batch could not be "
            "read"
        ),
        "InternVL3's own preference training": (
            "beta 0.1, weights 0.8 (dpo), 0.2 (bco_pair) and 1 (sft), learning_rate 2e-7, cosine, warm-up 3 %, weight decay 0.05, batch "
            "256, all parts trained"
        ),
        "adapters": "learning_rate 1e-5 (ours)",
    },
)
