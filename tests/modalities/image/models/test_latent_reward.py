"""The judge against a full network with hooks, and the published score formula."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_pipelines
from modalities.image.models.pipeline_cases import Folders, latents
from prefopt.modalities.image.models.latent_features import HalfUNet
from prefopt.modalities.image.models.latent_reward import TAU_MAX, LatentRewardModel, enhance, scaled_cosine
from prefopt.modalities.image.models.pipelines import load_pipeline

CASES = {
    case["name"]: case
    for case in json.loads((Path(__file__).parents[3] / "data" / "lpo.json").read_text("utf-8"))
}
PROMPTS = ["a red circle", "two blue squares, top left", ""]


def with_gs(judge: LatentRewardModel, gs: float) -> LatentRewardModel:
    judge.config = replace(judge.config, gs=gs)
    return judge


# -- the formula ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lrm_score_gs1", "lrm_score_gs7.5"])
def test_score_is_the_published_formula(name: str) -> None:
    given = {
        k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list | float) else v
        for k, v in CASES[name]["inputs"].items()
    }
    expected = {k: torch.tensor(v, dtype=torch.float64) for k, v in CASES[name]["expected"].items()}
    v_enh = enhance(given["v_mid"], given["v_mid_uncond"], float(given["gs"]))
    torch.testing.assert_close(v_enh, expected["v_enh"], rtol=0, atol=1e-12)
    visual = torch.cat([given["v_down"], v_enh], 1) @ given["W_visual"].T
    text = (given["text_eos"] @ given["W_text"].T).repeat(2, 1)
    scores = scaled_cosine(visual, text, given["logit_scale"])
    torch.testing.assert_close(scores, expected["scores"], rtol=0, atol=1e-10)


def test_temperature_is_bounded() -> None:
    v = torch.ones(1, 3)
    assert scaled_cosine(v, v, torch.tensor(9.0)).item() == pytest.approx(100.0)
    assert scaled_cosine(v, v, torch.tensor(TAU_MAX - 1)).item() == pytest.approx(100.0 / math.e)


# -- features ------------------------------------------------------------------------------------------------


def hooked_features(
    pipe: Any, family: str, x: Tensor, t: Tensor, prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """Down and middle features of a full forward pass, under the pipeline's own prompt encoding."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, index: int | None = None) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            value = output if index is None else output[index]
            seen[name] = value.mean((2, 3)) if value.ndim == 4 else value.mean(1)

        return hook

    more = {"sd": {}, "sdxl": {"prompt_2": None}, "sd3": {"prompt_2": None, "prompt_3": None}}[
        family[:4].rstrip("_")
    ]
    out = pipe.encode_prompt(
        prompt=prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, **more
    )
    with torch.no_grad():
        if family.startswith("sd3"):
            pipe.transformer.transformer_blocks[0].register_forward_hook(keep("mid", 1))
            pipe.transformer(x, encoder_hidden_states=out[0], pooled_projections=out[2], timestep=t)
            return x.new_zeros(len(x), 0), seen["mid"]
        unet = pipe.unet
        for n, block in enumerate(unet.down_blocks):
            last = block.attentions[-1] if hasattr(block, "attentions") else block.resnets[-1]
            index = 0 if hasattr(block, "attentions") else None
            last.register_forward_hook(keep(f"down{n}", index))
        unet.mid_block.register_forward_hook(keep("mid"))
        added = None
        if family == "sdxl":
            ids = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]]).expand(len(x), -1)
            added = {"text_embeds": out[2], "time_ids": ids}
        unet(x, t, encoder_hidden_states=out[0], added_cond_kwargs=added)
        return torch.cat([seen[f"down{n}"] for n in range(len(unet.down_blocks))], 1), seen["mid"]


def test_features_are_those_of_the_full_network(
    judge: LatentRewardModel, folders: Folders, family: str
) -> None:
    x, t = latents(judge, 3), torch.tensor([1, 451, 951])
    down, mid = hooked_features(load_pipeline(str(folders(family))).pipe, family, x, t, PROMPTS)
    given = judge.encode_prompts(PROMPTS).tensors
    with torch.no_grad():
        got_down, got_mid = judge.backbone(x, t, given["prompt_embeds"], given.get("pooled_prompt_embeds"))
        none, _ = judge.backbone(
            x, t, given["prompt_embeds"], given.get("pooled_prompt_embeds"), with_down=False
        )
    torch.testing.assert_close(got_down, down, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got_mid, mid, rtol=1e-5, atol=1e-6)
    assert none is None
    assert judge.W_v.in_features == down.shape[1] + mid.shape[1]


@pytest.mark.parametrize(
    ("config", "down", "mid"),
    [
        ({"cross_attention_dim": 768}, 320 + 640 + 1280 + 1280, 1280),
        (
            {
                "cross_attention_dim": 2048,
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
                "sample_size": 128,
            },
            320 + 640 + 1280,
            1280,
        ),
    ],
)
def test_widths_of_the_released_networks(config: dict[str, Any], down: int, mid: int) -> None:
    """SD 1.5 gives 4800 features, SDXL 3520 and sizes of 1024 (arXiv 2502.01051); no weights are made."""
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel

    with init_empty_weights():
        half = HalfUNet(UNet2DConditionModel(**config))
    assert (half.down_dim, half.mid_dim) == (down, mid)
    if config["cross_attention_dim"] == 2048:
        assert half.image_side == 1024


def test_second_half_is_gone(sd: LatentRewardModel, judges: dict[str, LatentRewardModel]) -> None:
    assert not [name for name, _ in sd.named_parameters() if "up_blocks" in name or "conv_out" in name]
    assert len(judges["sd3"].backbone.transformer.transformer_blocks) == 1


def by_hand(judge: LatentRewardModel, x: Tensor, t: Tensor, prompts: list[str], gs: float) -> Tensor:
    """The score one latent at a time, in the order of the formula."""
    scores = []
    for n, prompt in enumerate(prompts):
        own, empty = (judge.encode_prompts([p]).tensors for p in (prompt, ""))
        features = [
            judge.backbone(x[n : n + 1], t[n : n + 1], c["prompt_embeds"], c.get("pooled_prompt_embeds"))
            for c in (own, empty)
        ]
        (down, mid), (_, mid0) = features
        v = torch.cat([down, mid0 + gs * (mid - mid0)], 1) @ judge.W_v.weight.T
        text = own["text_vector"] if judge.W_t is None else own["text_vector"] @ judge.W_t.weight.T
        scores.append(judge.tau.exp() * (v / v.norm() * text / text.norm()).sum())
    return torch.stack(scores)


def test_score_by_hand(judge: LatentRewardModel) -> None:
    x, t = latents(judge, 3), torch.tensor([51, 451, 951])
    with torch.no_grad():
        for gs in (1.0, 7.5):
            got = with_gs(judge, gs).score(x, t, judge.encode_prompts(PROMPTS))
            torch.testing.assert_close(got, by_hand(judge, x, t, PROMPTS, gs), rtol=1e-5, atol=1e-5)
    assert got.dtype == torch.float32


def test_enhancement_changes_prompts_and_not_the_empty_one(judge: LatentRewardModel) -> None:
    x, t = latents(judge, 3), torch.tensor(501)
    with torch.no_grad():
        conditions = judge.encode_prompts(PROMPTS)
        plain, strong = (with_gs(judge, gs).score(x, t, conditions) for gs in (1.0, 7.5))
    torch.testing.assert_close(plain[2], strong[2], rtol=1e-5, atol=1e-5)
    assert (plain[:2] - strong[:2]).abs().min() > 1e-4


def test_without_enhancement_there_is_one_pass(sd: LatentRewardModel) -> None:
    calls: list[bool] = []
    sd.backbone.register_forward_hook(lambda *a, **k: calls.append(True))
    conditions = sd.encode_prompts(PROMPTS)
    with_gs(sd, 1.0).score(latents(sd, 3), 501, conditions)
    assert len(calls) == 1
    with_gs(sd, 2.0).score(latents(sd, 3), 501, conditions)
    assert len(calls) == 3


def test_rows_name_the_prompt_of_each_latent(judge: LatentRewardModel) -> None:
    x = latents(judge, 6)
    rows = torch.tensor([0, 0, 0, 1, 1, 2])
    with torch.no_grad():
        got = judge.score(x, 301, judge.encode_prompts(PROMPTS), rows)
        expected = judge.score(x, 301, judge.encode_prompts([PROMPTS[r] for r in rows]))
        assert torch.equal(judge(x, 301, [PROMPTS[r] for r in rows]), expected)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_timestep_and_prompt_matter(judge: LatentRewardModel) -> None:
    x = latents(judge, 1).expand(3, -1, -1, -1)
    with torch.no_grad():
        by_t = judge.score(x, torch.tensor([1, 501, 951]), judge.encode_prompts([PROMPTS[0]] * 3))
        by_prompt = judge.score(x, 501, judge.encode_prompts(PROMPTS))
    for scores in (by_t, by_prompt):
        assert torch.pdist(scores[:, None]).min() > 1e-5


def test_t5_is_averaged_over_the_tokens_of_the_text(judges: dict[str, LatentRewardModel]) -> None:
    text = judges["sd3_t5"].text
    ids = text.tokenizers[2](PROMPTS, padding="max_length", max_length=256, return_tensors="pt").input_ids
    lengths = [len(row) for row in text.tokenizers[2](PROMPTS).input_ids]
    with torch.no_grad():
        states = text.text_encoder_3(ids)[0]
        got = text.encode(PROMPTS).tensors["text_vector"]
    expected = torch.stack([row[:n].mean(0) for row, n in zip(states, lengths, strict=True)])
    torch.testing.assert_close(got[:, -states.shape[-1] :], expected)
    assert got.shape[1] == text.width


# -- the empty prompt ----------------------------------------------------------------------------------------


def test_sdxl_encodes_the_empty_prompt(judges: dict[str, LatentRewardModel], folders: Folders) -> None:
    pipe = load_pipeline(str(folders("sdxl"))).pipe
    assert pipe.config.force_zeros_for_empty_prompt
    zeros = pipe.encode_prompt("x", do_classifier_free_guidance=True)[1]
    assert zeros.abs().max() == 0
    assert judges["sdxl"].text.empty().tensors["prompt_embeds"].abs().max() > 0.1


def test_empty_prompt_is_encoded_once_until_the_encoder_changes(sd: LatentRewardModel) -> None:
    calls: list[bool] = []
    sd.text.text_encoder.register_forward_hook(lambda *a, **k: calls.append(True))
    x = latents(sd, 1)
    with torch.no_grad():
        conditions = sd.encode_prompts(["a"])
        before = sd.score(x, 501, conditions)
        assert torch.equal(sd.score(x, 501, conditions), before)
        assert len(calls) == 2  # the prompt, the empty prompt
        weight = next(p for p in sd.text.parameters() if p.ndim > 1)
        weight.mul_(1.5)
        assert not torch.equal(sd.score(x, 501, conditions), before)
        assert len(calls) == 3
        sd.eval()
        sd.score(x, 501, conditions)
        assert len(calls) == 4
    sd.score(x, 501, conditions)
    sd.score(x, 501, conditions)
    assert len(calls) == 6, "with gradients it must be encoded every time"
    with torch.no_grad():
        other = copy.deepcopy(sd)
        other.score(x, 501, conditions)
    assert len(calls) == 7, "a copy may be trained apart"


def test_empty_prompt_of_inference_mode_is_not_reused_for_training(
    judges: dict[str, LatentRewardModel],
) -> None:
    judge = copy.deepcopy(judges["sd3"])
    with torch.inference_mode():
        judge(latents(judge, 1), 500, ["a"])
    judge(latents(judge, 1), 500, ["a"]).sum().backward()


# -- training ------------------------------------------------------------------------------------------------


def test_what_is_trained(judge: LatentRewardModel, family: str) -> None:
    judge.train()
    score = judge(latents(judge, 2), torch.tensor([1, 951]), PROMPTS[:2])
    (score[0] - score[1]).backward()
    # parameters without a gradient stop data-parallel training
    assert not [name for name, p in judge.named_parameters() if p.requires_grad and p.grad is None]
    trained = {name for name, p in judge.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert {"W_v.weight", "tau"} <= trained
    assert ("W_t.weight" in trained) == (family != "sdxl")
    assert any("text_encoder" in name for name in trained) == (not family.startswith("sd3"))
    if family.startswith("sd3"):
        assert not any(p.requires_grad for p in judge.text.parameters())
        return
    for part in ("conv_in", "time_embedding", "down_blocks.0", "down_blocks.1", "mid_block"):
        assert any(f"backbone.unet.{part}" in name for name in trained), part
    assert any("add_embedding" in name for name in trained) == (family == "sdxl")
    assert any("text_encoder_2" in name for name in trained) == (family == "sdxl")


def test_every_block_of_a_transformer_can_be_the_last(folders: Folders) -> None:
    judge = LatentRewardModel.from_pipeline(folders("sd3"), feature_block=2).train()
    score = judge(latents(judge, 2), torch.tensor([1, 951]), PROMPTS[:2])
    (score[0] - score[1]).backward()
    assert not [name for name, p in judge.named_parameters() if p.requires_grad and p.grad is None]


def test_scores_repeat_while_training(judge: LatentRewardModel) -> None:
    """T5 encoders come with dropout."""
    judge.train()
    x = latents(judge, 2)
    assert torch.equal(judge(x, 500, PROMPTS[:2]), judge(x, 500, PROMPTS[:2]))


def test_half_precision_backbone_keeps_a_single_precision_head(
    folders: Folders, judges: dict[str, LatentRewardModel], family: str
) -> None:
    half = LatentRewardModel.from_pipeline(
        folders(family), dtype="bfloat16", feature_block=judges[family].config.feature_block
    ).eval()
    assert half.backbone.parameters().__next__().dtype == torch.bfloat16
    assert half.W_v.weight.dtype == torch.float32
    x = latents(half, 3)
    with torch.no_grad():
        got, full = (j(x, 501, PROMPTS) for j in (half, judges[family]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            auto = judges[family](x, 501, PROMPTS)
    assert got.dtype == auto.dtype == torch.float32
    assert (got - full).abs().max() < 1.5, (got, full)
    assert (auto - full).abs().max() < 1.5, (auto, full)


def test_start_of_the_head(folders: Folders, tmp_path: Path) -> None:
    clip = tiny_pipelines.clip(projection=True)
    clip.save_pretrained(tmp_path / "clip")
    judge = LatentRewardModel.from_pipeline(folders("sd"), text_projection=tmp_path / "clip")
    assert judge.W_t is not None
    assert torch.equal(judge.W_t.weight, clip.text_projection.weight)
    other = LatentRewardModel.from_pipeline(folders("sd"), embed_dim=1000, seed=1)
    assert other.W_v.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert other.tau.item() == pytest.approx(2.6592)
    with pytest.raises(ValueError, match=r"shape \(32, 32\); this judge needs \(1000, 32\)"):
        LatentRewardModel.from_pipeline(folders("sd"), embed_dim=1000, text_projection=tmp_path / "clip")
    with pytest.raises(ValueError, match="no W_t"):
        LatentRewardModel.from_pipeline(folders("sdxl"), text_projection=tmp_path / "clip")


def test_a_projecting_encoder_gives_trunk_and_projection(folders: Folders) -> None:
    pipe = load_pipeline(str(folders("sd"))).pipe
    pipe.text_encoder = tiny_pipelines.clip(projection=True)
    judge = LatentRewardModel.from_pipeline(pipe)
    assert judge.W_t is not None
    assert torch.equal(judge.W_t.weight, pipe.text_encoder.text_projection.weight)
    assert type(judge.text.text_encoder).__name__ == "CLIPTextModel"
    assert len(pipe.unet.up_blocks) == 2, "the given pipeline must stay whole"
