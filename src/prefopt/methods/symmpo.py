"""SymMPO compares two answers under each of two similar images, never one answer under two.

A model that describes things which are not in the picture says what usually stands there. DPO on answers can be satisfied
from the text alone. Here a second, similar image m' comes with a right answer y'_w of its own, and each image's right answer
is the wrong one for the other: whoever does not look cannot tell them apart.

```text
rho_w = rho(m, y_w)   rho_l = rho(m, y_l)   rho_c = rho(m, y'_w)   rho_cc = rho(m', y'_w)   rho_cw = rho(m', y_w)
m_1   = rho_w - rho_c          m_2 = rho_cc - rho_cw

response  -log sigma(beta (rho_w - rho_l))
pair      -log sigma(beta m_1) - log sigma(beta m_2)
margin    (m_1 - m_2)^2
anchor    -log sigma(beta rho_w - delta) - log sigma(beta rho_cc - delta)
loss      = response + lambda pair + gamma margin + eta anchor
```

lambda is `pair_weight`, gamma `margin_weight`, eta `anchor_weight`, delta `anchor_delta`.

## Why not one answer under two images

The reward of an answer is beta rho + beta log Z(m). Between two answers under one image Z(m) cancels; between two images
log Z(m)/Z(m') stays, which no policy can supply, and mDPO, S-VCO, CHiP and OPA-DPO leave it out. In a world small enough to be
exact, `prefopt reproduce symmpo` measures what that costs: response pairs have their minimum at the ideal policy, image pairs
have not. The margin term is a bias, too, unless the two true margins agree.

## Rows

`prompt`, `image`, `contrast_image`, `chosen` (y_w), `rejected` (y_l), `contrast_chosen` (y'_w); `contrast_rejected` (y'_l) only with
`dpo_on_contrast: true`. With `response_weight: 0` rows need no `rejected`. A row whose `contrast_chosen` is its `chosen` teaches the pair
term nothing (2 log 2, gradient 0), so m' has to be an image with another right answer: black, cropped or noisy ones have none.

## How to read the logs

- `symmpo/margin_own` and `symmpo/margin_contrast` are m_1 and m_2, `symmpo/accuracy_own` and `symmpo/accuracy_contrast` how often they are
  above 0. One of them alone rising means that one answer is preferred under both images.
- `symmpo/margin_gap` is |m_1 - m_2|, `symmpo/margin_share` the margin term's part of the gradient. Squared nats of long answers
  grow quickly: at 300 nats and the default weight the term outweighs the pair.
- `symmpo/reward_cc`, `symmpo/reward_cw`, `symmpo/reward_c` are rewards of the branches; `logps/chosen` says whether answers shrink.

## What is known

In the paper SymMPO beats mDPO on HallusionBench, MMHal, AMBER and MMStar, and both are worse than DPO on Object-HalBench. Of its
ablations the anchor matters most on HallusionBench (44.3 to 40.8), and leaving it out *raises* MMStar; without the margin term
HallusionBench is as good (44.5). An independent re-run (arXiv 2605.31312) finds it ahead of DPO in four of four settings and ahead
of mDPO in two of four: the lead does not replicate uniformly. The anchor and how hard m' is matter at least as much as which axis
is paired; finely edited images help every method.

## Relations

`dpo` with all other weights 0. The pair term alone is `dpo` on the rows (m; y_w, y'_w) and (m'; y'_w, y_w). `svco` pairs the same four
numbers along the other axis; `symmpo+svco` with `pair_weight: 0` and `margin_weight: 0` has its terms beside response and anchors.
`mdpo` needs no second answer.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="symmpo",
    title="Symmetric multimodal preference optimization",
    modality="vision",
    paper=Paper(
        title="Mitigating Hallucination Through Theory-Consistent Symmetric Multimodal Preference Optimization",
        authors="Wenqi Liu, Xuemeng Song, Jiaxi Li, Yinwei Wei, Na Zheng, Jianhua Yin, Liqiang Nie",
        year=2025,
        arxiv="2506.11712",
        venue="NeurIPS 2025",
    ),
    summary="Two similar images, each with its right answer, which is the wrong one for the other; and an anchor.",
    use_when=(
        "A vision-language model describes what is not in the picture, and you have similar images with a right answer each, "
        "or can build them."
    ),
    failure_signs=(
        "`logps/chosen` falls and answers grow shorter: the anchor is off or too weak, raise anchor_weight. "
        "`symmpo/margin_share` is near 1: the margin term drives the run, lower margin_weight or set average=true. "
        "`symmpo/accuracy_own` is high and `symmpo/accuracy_contrast` low: one answer wins under both images, so many "
        "contrast answers are not right for their image. Fewer hallucinations and fewer objects named: judge by recall or F1 "
        "too, never by the share of hallucinations alone."
    ),
    defaults={
        "beta": 0.1,
        "pair_weight": 0.5,
        "margin_weight": 1e-4,
        "anchor_weight": 1.0,
        "learning_rate": 5e-6,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.05,
        "weight_decay": 0.01,
        "num_train_epochs": 2,
    },
    papers_config={
        "LLaVA-1.5 7B and 13B": (
            "beta 0.1, pair_weight 0.5, margin_weight 1e-4, anchor_weight 1, batch 64, 2 epochs (670 steps on 21k rows), "
            "learning_rate 5e-6, cosine, warm-up 5 %, language model and projector trained, vision tower frozen"
        ),
        "released scripts": (
            "batch 128 (so 670 steps are 4 epochs), LoRA with r 128, alpha 256, batch 256 and learning_rate 5e-7; an "
            "independent re-run takes 5e-6 for LoRA, too"
        ),
        "units": "the released code squares the margins' difference in nats; the paper writes rewards (margin_units=reward)",
    },
)
