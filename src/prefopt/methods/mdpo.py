"""mDPO adds to DPO the same answer under a spoilt image, and an anchor that keeps the right answer likely.

```text
-log sigma(beta (rho_w - rho_l)) - w_i log sigma(beta (rho(m, y_w) - rho(m', y_w))) - w_a log sigma(beta rho_w - delta)
```

w_i is `image_weight`, w_a `anchor_weight`, delta `anchor_delta`. Rows hold `prompt`, `image`, `contrast_image`, `chosen`, `rejected`; m' is a crop
of the image to at most a fifth (in the released trainer its tokens are masked instead), and needs no answer of its own.

## What is known

The image term compares one answer under two images, so log Z(m)/Z(m') is missing from its margin and its minimum is not the ideal
policy (`prefopt reproduce symmpo` measures it). In practice it holds its own: an independent re-run (arXiv 2605.31312) has it ahead of DPO in
all four settings, and of SymMPO in two. Much of what sets methods with two images apart is the anchor, and how hard m' is.

## Relations

`dpo` with both weights 0. `mfpo` is this loss with another m'. `symmpo` gives m' an answer of its own and compares answers.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="mdpo",
    title="Conditional preference optimization for images with text",
    modality="vision",
    paper=Paper(
        title="mDPO: Conditional Preference Optimization for Multimodal Large Language Models",
        authors="Fei Wang, Wenxuan Zhou, James Y. Huang, Nan Xu, Sheng Zhang, Hoifung Poon, Muhao Chen",
        year=2024,
        arxiv="2406.11839",
        venue="EMNLP 2024",
    ),
    summary="DPO, the right answer under a spoilt image as another loser, and an anchor.",
    use_when="You have ordinary pairs with images, and nothing but spoilt copies of the images to contrast them with.",
    failure_signs=(
        "`mdpo/image` goes to 0 within a few steps: the spoilt image is too easy to tell, take one that is more like the "
        "original. `logps/chosen` falls: raise anchor_weight."
    ),
    defaults={
        "contrast_image": "crop",
        "beta": 0.1,
        "image_weight": 1.0,
        "anchor_weight": 1.0,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "weight_decay": 0.05,
        "adam_beta2": 0.98,
        "num_train_epochs": 3,
    },
    papers_config={
        "Silkie, 10k rows": "batch 32, 3 epochs, learning_rate 1e-5, LoRA with r 64 and alpha 128 on all linear layers",
    },
)
