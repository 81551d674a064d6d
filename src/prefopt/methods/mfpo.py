"""MFPO trains mDPO's three terms on images that are noised where the key words of the answer are.

```text
-log sigma(beta (rho_w - rho_l)) - log sigma(beta (rho(m, y_w) - rho(m', y_w))) - log sigma(beta rho_w)
```

The loss is `mdpo` with all weights 1. What is new lies in the data: key words of y_w are found by a graph of its words, their regions
by a segmentation model, and m' is m with diffusion noise (500 of 1000 steps) in these regions alone, or everywhere where none is found.
Training passes over the rows in three parts, from answers on which the model is sure of itself to those on which it is not. Rows hold
`prompt`, `image`, `contrast_image`, `chosen`, `rejected`: make m' and the order before training.

## What is known

On LLaVA-1.5-7B the paper reports CHAIRs 13.4 and CHAIRi 6.6 on Object-HalBench (DPO 49.0 and 13.0, mDPO 35.7 and 9.8). A share of
hallucinations falls, too, where a model says less: read it beside recall.

## Relations

`mdpo` by another name: the same objective and keys. Its image term has the same missing log Z(m)/Z(m').
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="mfpo",
    title="Modality-fair preference optimization",
    objective="mdpo",
    modality="vision",
    paper=Paper(
        title="Modality-Fair Preference Optimization for Trustworthy MLLM Alignment",
        authors="Songtao Jiang, others",
        year=2024,
        arxiv="2410.15334",
    ),
    summary="mDPO's loss on images noised where the answer's key words are, from easy rows to hard ones.",
    use_when="You can find the regions that an answer speaks of, and want the contrast image to differ in these alone.",
    failure_signs="As `mdpo`. `mdpo/image` near 0 from the start: the noise covers too much, restrict it to the regions.",
    defaults={"contrast_image": "noise", "beta": 0.1, "image_weight": 1.0, "anchor_weight": 1.0},
    papers_config={
        "all": "weights 1:1:1, anchor_delta 0, noise at step 500 of 1000, three passes by semantic entropy"
    },
)
