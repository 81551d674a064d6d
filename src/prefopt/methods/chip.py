"""CHiP puts answers, their changed segments, a token-level divergence and an image contrast into one loss.

```text
m_r = rho_w - rho_l      m_v = rho(m, y_w) - rho(m', y_w)      changed tokens count `segment_weight` times in all of them
k   = K(y_l) - sg K(y_w)         K(y) = sum_t KL(pi_ref(. | y before t) || pi(. | y before t))
inside     -log sigma(beta (m_r + m_v - kappa k))
separate   -log sigma(beta m_r) - log sigma(beta m_v) + kappa beta k
```

`combine: inside` is the released code, `separate` closer to the paper, which presents its terms one by one. m' is the image noised by 500 of
1000 diffusion steps. Rows hold `prompt`, `image`, `contrast_image`, `chosen`, `rejected`.

K needs the reference's whole distribution at every place, which cannot be cached as sums can: each step runs the reference
(`reference: live`, or `adapter_off` with adapters). `kappa: 0` does without, and then `reference: cached` is enough.

## What is known

m_v compares one answer under two images, so log Z(m)/Z(m') is missing from it, inside the same sigmoid as the rest.

## Relations

`ddpo` without `normalize` for the segments, `mdpo` without its anchor for the image; the divergence is TDPO's (arXiv 2404.11999).
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="chip",
    title="Cross-modal hierarchical DPO",
    modality="vision",
    paper=Paper(
        title="CHiP: Cross-modal Hierarchical Direct Preference Optimization for Multimodal LLMs",
        authors="Jinlan Fu, Shenzhen Huangfu, Hao Fei, Xiaoyu Shen, Bryan Hooi, Xipeng Qiu, See-Kiong Ng",
        year=2025,
        arxiv="2501.16629",
        venue="ICLR 2025",
    ),
    summary="Answers with weighted segments, a noised image and a divergence a token, inside one sigmoid.",
    use_when="Corrected answers as for ddpo, noised images as for mdpo, and memory for the reference beside the policy.",
    failure_signs=(
        "Accuracy is high and rewards/margins stay small: the image carries the one sigmoid, set combine=separate. Memory runs "
        "out: set kappa=0, which needs no distributions."
    ),
    defaults={
        "contrast_image": "noise",
        "beta": 0.1,
        "kappa": 0.1,
        "segment_weight": 4.0,
        "reference": "live",
        "learning_rate": 5e-7,
        "num_train_epochs": 1,
        "max_grad_norm": 20.0,
    },
    papers_config={
        "LLaVA-1.6-7B, RLHF-V 5.7k rows": "beta 0.1, kappa 0.1, learning_rate 5e-7, 1 epoch, gradient norm 20"
    },
)
