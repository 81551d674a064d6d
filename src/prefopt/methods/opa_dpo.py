"""OPA-DPO compares a model's own answer with its minimal correction and with the truth.

```text
sum over y in {y_gt, y_rev} of
    -log sigma(beta (rho(m, y) - rho(m, y_gen))) - mu log sigma(beta (rho(m, y) - rho(m', y))) - nu log sigma(beta rho(m, y) - delta)
```

mu is `image_weight`, nu `anchor_weight`, delta `anchor_delta`. Rows hold `prompt`, `image`, `contrast_image` (30 % of its patches masked), `chosen` (y_gt),
`revised` (y_rev, the own answer with its errors corrected) and `rejected` (y_gen, the own answer).

It is a second stage. The first is supervised: `sft` with adapters on y_gt and y_rev, so that corrected answers become likely under the
model; what comes out is both the start and the reference of this one. Without it the corrected answers are off-policy, and the paper shows
that DPO then learns little.

## What differs from the released code

The code keeps log-probabilities a token and takes the sigmoid place by place across two different answers; scores a sentence weigh tokens;
and its anchor *lowers* y_rev. This is the form of whole answers that the paper describes.

## Relations

`dpo` on two pairs of one row, with `mdpo`'s further terms on both. The image term misses log Z(m)/Z(m'), as there.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="opa_dpo",
    title="On-policy alignment DPO",
    modality="vision",
    paper=Paper(
        title="Mitigating Hallucinations in Large Vision-Language Models via DPO: On-Policy Data Hold the Key",
        authors="Zhihe Yang, Xufang Luo, Dongqi Han, Yunjian Xu, Dongsheng Li",
        year=2025,
        arxiv="2501.09695",
        venue="CVPR 2025",
    ),
    summary="The truth and a minimal correction against the model's own answer, after training on both.",
    use_when="You can have the model's own answers corrected, by people or by a stronger model.",
    failure_signs=(
        "`opa_dpo/reward_rev` stays below 0: the corrections are off-policy, train the supervised stage first. "
        "`opa_dpo/image` goes to 0 at once: the mask is too easy to see."
    ),
    defaults={
        "contrast_image": "mask",
        "beta": 0.1,
        "image_weight": 0.2,
        "anchor_weight": 1.0,
        "learning_rate": 1e-6,
        "num_train_epochs": 4,
    },
    papers_config={
        "supervised stage": "supervised, LoRA with r 256 and alpha 512, 2 epochs on y_gt and y_rev",
        "this stage": "beta 0.1, image_weight 0.2, anchor_weight 1, learning_rate 1e-6, 4 epochs, batch 32, 4.8k rows",
    },
)
