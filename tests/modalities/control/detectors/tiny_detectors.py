"""Tiny random models of the real classes with their processors, as `save_pretrained` leaves them, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

STAGES = ["stage1", "stage2", "stage3", "stage4"]
CLASSES = 5


def images(n: int = 3, height: int = 48, width: int = 64) -> Tensor:
    """Bytes over 255: smooth, with noise."""
    generator = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noisy = smooth + 0.02 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


def save(make: Callable[[], Any], processor: Any, folder: Path, scale: float = 3) -> Path:
    """A model made with a fixed seed; freshly made weights hardly tell images apart, so they are made larger."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(scale if p.ndim > 1 else 1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def segformer(folder: Path, **values: Any) -> Path:
    config = transformers.SegformerConfig(
        num_labels=CLASSES, depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2],
    )  # fmt: skip
    processor = SegformerImageProcessorPil(**{"size": {"height": 32, "width": 32}, **values})
    return save(lambda: transformers.SegformerForSemanticSegmentation(config), processor, folder)


def upernet(folder: Path) -> Path:
    backbone = transformers.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, out_features=STAGES)
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=8, auxiliary_channels=8, auxiliary_in_channels=8, num_labels=CLASSES,
        pool_scales=[1, 2],
    )  # fmt: skip
    processor = SegformerImageProcessorPil(size={"height": 64, "width": 64})
    return save(lambda: transformers.UperNetForSemanticSegmentation(config), processor, folder)


def _swin() -> Any:
    return transformers.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1] * 4,
        window_size=2,
        out_features=STAGES,
    )


def mask2former(folder: Path) -> Path:
    config = transformers.Mask2FormerConfig(
        backbone_config=_swin(), num_labels=CLASSES, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32,
        num_queries=6,
    )  # fmt: skip

    def make() -> Any:
        model = transformers.Mask2FormerForUniversalSegmentation(config)
        with torch.no_grad():
            # queries that are of different classes, and masks with edges
            model.class_predictor.weight.mul_(8)
            for p in model.model.transformer_module.decoder.mask_predictor.mask_embedder.parameters():
                p.mul_(8)
        return model

    processor = Mask2FormerImageProcessorPil(size={"shortest_edge": 40, "longest_edge": 200})
    return save(make, processor, folder, scale=1)


def maskformer(folder: Path) -> Path:
    decoder = transformers.DetrConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, num_queries=6,
    )  # fmt: skip
    config = transformers.MaskFormerConfig(
        backbone_config=_swin(),
        decoder_config=decoder,
        num_labels=CLASSES,
        fpn_feature_size=32,
        mask_feature_size=32,
    )
    processor = MaskFormerImageProcessorPil(size={"shortest_edge": 40, "longest_edge": 200})
    return save(lambda: transformers.MaskFormerForInstanceSegmentation(config), processor, folder)


def dpt(folder: Path) -> Path:
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8, head_in_index=-1,
    )  # fmt: skip
    processor = DPTImageProcessorPil(size={"height": 32, "width": 32})
    return save(lambda: transformers.DPTForDepthEstimation(config), processor, folder)


def depth_anything(folder: Path) -> Path:
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14, out_features=STAGES,
        reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, patch_size=14, neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    processor = DPTImageProcessorPil(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14
    )
    return save(lambda: transformers.DepthAnythingForDepthEstimation(config), processor, folder)


def yolos(folder: Path, labels: tuple[str, ...] = ("person", "cat")) -> Path:
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=[32, 32],
        patch_size=8, num_detection_tokens=6, id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip

    def make() -> Any:
        model = transformers.YolosForObjectDetection(config)
        with torch.no_grad():  # zeros, with which all tokens would find the same
            model.vit.embeddings.detection_tokens.normal_()
        return model

    processor = YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64})
    return save(make, processor, folder, scale=8)


def rt_detr(folder: Path) -> Path:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        layer_type="basic",
        out_features=STAGES[1:],
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], encoder_layers=1,
        encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, num_queries=6, decoder_layers=1,
        decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, decoder_attention_heads=2, hidden_expansion=0.5,
        id2label={0: "person"}, label2id={"person": 0}, anchor_image_size=None, num_denoising=0,
    )  # fmt: skip
    processor = RTDetrImageProcessorPil(size={"height": 64, "width": 64})
    return save(lambda: transformers.RTDetrForObjectDetection(config), processor, folder)


def vitpose(folder: Path, keypoints: int = 17, experts: int = 1) -> Path:
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=[32, 24], patch_size=[8, 8],
        out_features=["stage2"], num_experts=experts, part_features=8 if experts > 1 else 0,
    )  # fmt: skip
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=keypoints)

    def make() -> Any:
        model = transformers.VitPoseForPoseEstimation(config)
        with torch.no_grad():  # heatmaps that peak on both sides of the threshold of a keypoint
            model.head.conv.bias.copy_(torch.linspace(-0.6, 0.6, keypoints))
        return model

    processor = VitPoseImageProcessorPil(size={"height": 32, "width": 24})
    return save(make, processor, folder, scale=4)
