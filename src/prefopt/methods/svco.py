"""S-VCO makes each of two answers prefer its own image to the other's.

```text
-log sigma(beta (rho(m, y_w) - rho(m', y_w))) - log sigma(beta (rho(m', y'_w) - rho(m, y'_w)))
```

The form is that of an independent re-implementation (arXiv 2605.31312); the paper contrasts with no image at all, too. Rows hold `prompt`,
`image`, `contrast_image`, `chosen`, `contrast_chosen`. Nothing of a rejected answer is read: a row's losing side is (m, y'_w).

## What is known

Both margins compare one answer under two images, so log Z(m)/Z(m') is missing, once with either sign. In an exact small world the
fitted policy stays far from the ideal one (`prefopt reproduce symmpo`). On benchmarks it is a close rival of `symmpo`: of the four
settings of the re-run it is ahead in two and behind in two, by less than a point.

## Relations

`symmpo` has the same four log-ratios in its pair term, paired along the other axis, and is the cleanest comparison there is: run
`symmpo` with `pair_weight: 1`, `margin_weight: 0`, `anchor_weight: 0`, `response_weight: 0`. `dpo+svco` adds rejected answers.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="svco",
    title="Symmetrical visual contrastive optimization",
    modality="vision",
    paper=Paper(
        title="Symmetrical Visual Contrastive Optimization: Aligning Vision-Language Models with Minimal Contrastive Images",
        authors="Shengguang Wu, Fan-Yun Sun, Kaiyue Wen, Nick Haber",
        year=2025,
        arxiv="2502.13928",
    ),
    summary="Two minimally different images, two answers, each of which must be likelier under its own image.",
    use_when="Pairs of images that differ in little, each with its answer; as a term beside dpo, or to compare with symmpo.",
    failure_signs=(
        "Both terms fall while `logps/chosen` falls: nothing here keeps an answer likely, add dpo or sft. Chosen and contrast "
        "answers are confused in samples: this loss never compares two answers, take symmpo."
    ),
    defaults={"beta": 0.1},
    papers_config={
        "re-run (arXiv 2605.31312)": "LoRA with r 128 and alpha 256, learning_rate 5e-6, batch 64, 1 epoch"
    },
)
