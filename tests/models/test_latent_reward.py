"""The judge against a full network with hooks, the published score formula, and its own files."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_pipelines
from prefopt.models.latent_features import HalfUNet
from prefopt.models.latent_reward import TAU_MAX, LatentRewardModel, enhance, scaled_cosine
from prefopt.models.latent_space import LatentSpace, NoiseSchedule
from prefopt.models.pipelines import load_pipeline

CASES = {
    case["name"]: case
    for case in json.loads((Path(__file__).parents[1] / "data" / "lpo.json").read_text("utf-8"))
}
PROMPTS = ["a red circle", "two blue squares, top left", ""]
FAMILIES: dict[str, Callable[..., Path]] = {
    "sd": tiny_pipelines.tiny_sd,
    "sdxl": tiny_pipelines.tiny_sdxl,
    "sd3": tiny_pipelines.tiny_sd3,
    "sd3_t5": lambda folder: tiny_pipelines.tiny_sd3(folder, t5=True),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pipelines")
    return {name: build(place / name) for name, build in FAMILIES.items()}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def judges(folders: dict[str, Path]) -> dict[str, LatentRewardModel]:
    """Read them, never change them."""
    return {
        name: LatentRewardModel.from_pipeline(folder, feature_block=1 if "sd3" in name else None).eval()
        for name, folder in folders.items()
    }


@pytest.fixture
def judge(judges: dict[str, LatentRewardModel], family: str) -> LatentRewardModel:
    return copy.deepcopy(judges[family])


@pytest.fixture
def sd(judges: dict[str, LatentRewardModel]) -> LatentRewardModel:
    return copy.deepcopy(judges["sd"])


def pipeline_of(folder: Path) -> Any:
    return load_pipeline(str(folder)).pipe


def latents(judge: LatentRewardModel, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, judge.config.latent_space.channels, 8, 8, generator=generator)


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
    judge: LatentRewardModel, folders: dict[str, Path], family: str
) -> None:
    x, t = latents(judge, 3), torch.tensor([1, 451, 951])
    down, mid = hooked_features(pipeline_of(folders[family]), family, x, t, PROMPTS)
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


def test_sdxl_encodes_the_empty_prompt(
    judges: dict[str, LatentRewardModel], folders: dict[str, Path]
) -> None:
    pipe = pipeline_of(folders["sdxl"])
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


def test_half_precision_backbone_keeps_a_single_precision_head(
    folders: dict[str, Path], judges: dict[str, LatentRewardModel], family: str
) -> None:
    half = LatentRewardModel.from_pipeline(
        folders[family], dtype="bfloat16", feature_block=judges[family].config.feature_block
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


def test_start_of_the_head(folders: dict[str, Path], tmp_path: Path) -> None:
    clip = tiny_pipelines.clip(projection=True)
    clip.save_pretrained(tmp_path / "clip")
    judge = LatentRewardModel.from_pipeline(folders["sd"], text_projection=tmp_path / "clip")
    assert judge.W_t is not None
    assert torch.equal(judge.W_t.weight, clip.text_projection.weight)
    other = LatentRewardModel.from_pipeline(folders["sd"], embed_dim=1000, seed=1)
    assert other.W_v.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert other.tau.item() == pytest.approx(2.6592)
    with pytest.raises(ValueError, match=r"shape \(32, 32\); this judge needs \(1000, 32\)"):
        LatentRewardModel.from_pipeline(folders["sd"], embed_dim=1000, text_projection=tmp_path / "clip")
    with pytest.raises(ValueError, match="no W_t"):
        LatentRewardModel.from_pipeline(folders["sdxl"], text_projection=tmp_path / "clip")


def test_a_projecting_encoder_gives_trunk_and_projection(folders: dict[str, Path]) -> None:
    pipe = pipeline_of(folders["sd"])
    pipe.text_encoder = tiny_pipelines.clip(projection=True)
    judge = LatentRewardModel.from_pipeline(pipe)
    assert judge.W_t is not None
    assert torch.equal(judge.W_t.weight, pipe.text_encoder.text_projection.weight)
    assert type(judge.text.text_encoder).__name__ == "CLIPTextModel"
    assert len(pipe.unet.up_blocks) == 2, "the given pipeline must stay whole"


# -- refusals ------------------------------------------------------------------------------------------------


def test_refuses_what_it_was_not_trained_on(sd: LatentRewardModel) -> None:
    sd.config = replace(sd.config, timestep_range=(1, 951))
    conditions = sd.encode_prompts(["a", "b"])
    for t in (0, 952, torch.tensor([1, 999])):
        with pytest.raises(ValueError, match="trained on 1 to 951"):
            sd.score(latents(sd, 2), t, conditions)
    with pytest.raises(ValueError, match=r"\(B, 4, H, W\)"):
        sd.score(torch.zeros(2, 16, 8, 8), 1, conditions)
    with pytest.raises(ValueError, match="3 latents and 2 prompts: give `rows`"):
        sd.score(latents(sd, 3), 1, conditions)
    with pytest.raises(ValueError, match=r"rows has shape \(2,\)"):
        sd.score(latents(sd, 3), 1, conditions, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="one, or one each"):
        sd.score(latents(sd, 2), torch.tensor([1, 2, 3]), conditions)
    with pytest.raises(TypeError, match="list of texts"):
        sd.encode_prompts("a red circle")


def test_range_of_timesteps_comes_from_the_scheduler(judges: dict[str, LatentRewardModel]) -> None:
    assert judges["sd"].config.timestep_range == (0, 999)
    assert judges["sd3"].config.timestep_range == (0, 1000)


def test_long_prompts_warn_once(sd: LatentRewardModel) -> None:
    with pytest.warns(UserWarning, match="1 of 2 prompts have more than 77 tokens"):
        conditions = sd.encode_prompts(["word " * 90, "a"])
    assert conditions.tensors["prompt_embeds"].shape[1] == 77


def test_latent_space_is_checked(judge: LatentRewardModel, folders: dict[str, Path], family: str) -> None:
    pipe = pipeline_of(folders[family])
    judge.check_latent_space(pipe)
    judge.check_latent_space(pipe.vae)
    judge.check_latent_space(copy.deepcopy(pipe.vae).to(torch.bfloat16))
    with torch.no_grad():
        tuned = copy.deepcopy(pipe.vae)
        for p in tuned.decoder.parameters():
            p.add_(0.3)
    judge.check_latent_space(tuned)  # a new decoder leaves the latents as they are

    other = copy.deepcopy(pipe.vae)
    with torch.no_grad():
        for p in other.encoder.parameters():
            p.copy_(p.flip(0))
    with pytest.raises(ValueError, match=r"different latent space.*relative distance of"):
        judge.check_latent_space(other)
    scaled = copy.deepcopy(pipe.vae)
    scaled.register_to_config(scaling_factor=0.5)
    with pytest.raises(ValueError, match=r"different latent space.*scaling_factor 0\.5"):
        judge.check_latent_space(scaled)
    wider = tiny_pipelines.vae(latent_channels=6)
    with pytest.raises(ValueError, match=r"different latent space.*6 channels.*inf"):
        judge.check_latent_space(wider)


def test_noise_schedule_is_checked(sd: LatentRewardModel, folders: dict[str, Path]) -> None:
    pipe = pipeline_of(folders["sd"])
    pipe.scheduler = tiny_pipelines.scheduler_of("euler", "v_prediction")
    sd.check_latent_space(pipe)  # another solver, the same noise
    pipe.scheduler = type(pipe.scheduler)(beta_start=0.0001, beta_end=0.02)
    with pytest.raises(ValueError, match="different noise schedule"):
        sd.check_latent_space(pipe)
    pipe.scheduler = pipeline_of(folders["sd3"]).scheduler
    with pytest.raises(ValueError, match="different noise schedule"):
        sd.check_latent_space(pipe)
    assert NoiseSchedule.of(pipe.scheduler).is_flow


def test_half_precision_moves_the_test_image_far_less_than_the_tolerance(folders: dict[str, Path]) -> None:
    vae = pipeline_of(folders["sd"]).vae
    space = LatentSpace.of(vae)
    assert space.distance(LatentSpace.of(copy.deepcopy(vae).half())) < 0.01
    assert space == LatentSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert (space.channels, space.spatial_factor) == (4, 4)


@pytest.mark.parametrize("change", ["class_embed", "inpainting", "no_encoder", "controlnet"])
def test_models_that_cannot_be_judges(folders: dict[str, Path], change: str) -> None:
    pipe = pipeline_of(folders["sd"])
    width = tiny_pipelines.WIDTH
    message = ""
    if change == "class_embed":
        pipe.unet = tiny_pipelines.unet(cross_attention_dim=width, num_class_embeds=3)
        message = "no class embedding"
    elif change == "inpainting":
        pipe.unet = tiny_pipelines.unet(cross_attention_dim=width, in_channels=9)
        message = "takes 9 channels and the VAE makes 4"
    elif change == "no_encoder":
        pipe.text_encoder = None
        message = "has no text_encoder"
    else:
        pipe = torch.nn.Linear(1, 1)
        message = "a judge cannot be made of a Linear"
    with pytest.raises(ValueError, match=message):
        LatentRewardModel.from_pipeline(pipe)


# -- files ---------------------------------------------------------------------------------------------------


def test_round_trip(judge: LatentRewardModel, tmp_path: Path, family: str) -> None:
    with torch.no_grad():
        judge.tau.add_(0.5)
        judge.config = replace(judge.config, gs=3.0, timestep_range=(1, 951))
    x, t = latents(judge, 3), torch.tensor([1, 451, 951])
    folder = tmp_path / "judge"
    judge.save_pretrained(folder)
    judge.save_pretrained(folder)  # an older judge gives way
    assert [p.name for p in tmp_path.iterdir()] == ["judge"], "no temporary folder may stay"
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    again = LatentRewardModel.from_pretrained(folder)
    assert again.config == judge.config
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(x, t, PROMPTS), judge(x, t, PROMPTS))
    assert not any(p.is_meta for p in again.parameters())
    assert not any(b.is_meta for b in again.buffers())
    trainable = {n for n, p in judge.named_parameters() if p.requires_grad}
    assert trainable == {n for n, p in again.named_parameters() if p.requires_grad}
    if family == "sd":
        half = LatentRewardModel.from_pretrained(folder, dtype="bfloat16")
        assert next(half.backbone.parameters()).dtype == next(half.text.parameters()).dtype == torch.bfloat16
        assert half.W_v.weight.dtype == torch.float32


def test_files_that_do_not_fit(sd: LatentRewardModel, folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(FileNotFoundError, match="holds no latent reward model"):
        LatentRewardModel.from_pretrained(folders["sd"])
    with pytest.raises(FileNotFoundError):
        LatentRewardModel.from_pipeline(tmp_path / "nothing")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="holds something else"):
        sd.save_pretrained(tmp_path / "work")
    assert (tmp_path / "work" / "thesis.txt").exists()
    sd.save_pretrained(tmp_path / "judge")
    weights = load_file(tmp_path / "judge" / "model.safetensors")
    del weights["W_v.weight"]
    save_file(weights, tmp_path / "judge" / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit config.json: it lacks \['W_v.weight'\]"):
        LatentRewardModel.from_pretrained(tmp_path / "judge")


def test_a_failed_save_leaves_the_old_judge(sd: LatentRewardModel, tmp_path: Path, monkeypatch: Any) -> None:
    sd.save_pretrained(tmp_path / "judge")
    before = (tmp_path / "judge" / "model.safetensors").read_bytes()
    with torch.no_grad():
        sd.tau.zero_()

    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        sd.save_pretrained(tmp_path / "judge")
    assert (tmp_path / "judge" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["judge"]


def test_a_failed_replacement_puts_the_old_judge_back(
    sd: LatentRewardModel, tmp_path: Path, monkeypatch: Any
) -> None:
    sd.save_pretrained(tmp_path / "judge")
    rename = Path.rename

    def once(self: Path, target: Path) -> Path:
        if target.name == "judge" and "-old-" not in self.name:
            raise OSError("in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(OSError, match="in use"):
        sd.save_pretrained(tmp_path / "judge")
    assert [p.name for p in tmp_path.iterdir()] == ["judge"]
    LatentRewardModel.from_pretrained(tmp_path / "judge")
