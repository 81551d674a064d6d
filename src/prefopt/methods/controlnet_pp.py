"""ControlNet++: the diffusion loss, and a reward for images that show what the control image shows.

A ControlNet is trained to denoise, and nothing tells it how closely its images follow their conditions. Here a detector looks
at the model's one-step estimate of the image and compares what it sees with the condition, with gradients through estimate,
decoder and detector.

```text
loss = l(c) + consistency_weight mean_i reward_i          over the examples with t <= consistency_timestep
reward = loss of the detector on xhat_0                   cross-entropy of class maps, squared error of edges and depth
```

Only at little noise is the estimate an image, so high noise levels, where layout is decided, get no signal: that is what
`condition_po` adds, as a second stage on top of this one.

## Data

Rows of one image under its true condition (`prompt`, `image`, `condition`), as ControlNets are trained on; of comparisons the
chosen side. `controlnet=new` starts from the base pipeline's own weights.

## Detectors

`detector` must let gradients through: `canny_torch`, `segmentation:DIR`, `depth:DIR`, a world's own, or yours
([Control images](../control.md#detectors)). Measure the result by another one.

## Relations

`consistency_weight=0` is `sft`, ControlNet's own loss. `condition_po` with a `consistency_weight` trains on both at once; its
authors do one after the other.

## How to read the logs

- `consistency/loss` is what the detector says where it looks; it should fall.
- `fidelity_...` is measured on samples through the run, and is what counts.
"""

from __future__ import annotations

from prefopt.methods.base import Method, Paper

METHOD = Method(
    name="controlnet_pp",
    title="ControlNet++ (consistency reward)",
    modality="control",
    paper=Paper(
        title="ControlNet++: Improving Conditional Controls with Efficient Consistency Feedback",
        authors="Ming Li, Taojiannan Yang, Huafeng Kuang, Jie Wu, Zhaoning Wang, Xuefeng Xiao, Chen Chen",
        year=2024,
        arxiv="2404.07987",
        venue="ECCV 2024",
    ),
    summary="Diffusion loss, and a detector's loss on the one-step estimate at low noise.",
    use_when=(
        "You have images with their conditions and a detector that lets gradients through, and want a ControlNet that follows "
        "its control images. The stage before condition_po, and its baseline."
    ),
    failure_signs=(
        "Images become sharp caricatures that please the detector: lower consistency_weight, and measure by another detector. "
        "`consistency/loss` is absent from the log: no example had so little noise; take larger batches or a larger "
        "consistency_timestep."
    ),
    defaults={"consistency_weight": 0.5, "learning_rate": 1e-5, "weight_decay": 1e-2},
    papers_config={
        "SD 1.5": (
            "consistency_weight 0.5 (class maps, line art), 1.0 (edges, depth), timesteps up to 200, learning_rate 1e-5, "
            "batch 256, 5000 steps (class maps) or 10000, 512 pixels"
        ),
    },
)
