"""Pipelines as users have them: what we encode, compute, sample and save is what plain diffusers makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prefopt.models.denoiser import (
    Conditions,
    adapter_parameters,
    add_frozen_adapter,
    denoise,
    guided_denoise,
    use_adapter,
)
from prefopt.models.loading import LoraSettings
from prefopt.models.pipeline_saving import save_trained, write_trained
from prefopt.models.pipeline_tensors import (
    decode_latents,
    encode_images,
    encode_prompts,
    encode_unconditional,
    generate_images,
)
from prefopt.models.pipelines import (
    LoadedPipeline,
    borrowed,
    check_pipeline_source,
    free,
    is_pipeline,
    load_pipeline,
    restore,
    text_identity,
    vae_identity,
)
from tiny_pipelines import tiny_sd, tiny_sd3, tiny_sdxl

pytestmark = pytest.mark.filterwarnings("ignore:.*prompts have more than 77 tokens")

PROMPTS = ["a red circle, top left", "", "two blue squares " * 20]
KINDS: dict[str, Callable[[Path], Path]] = {
    "sd": tiny_sd,
    "sd_v": lambda folder: tiny_sd(folder, prediction_type="v_prediction", scheduler="pndm"),
    "sdxl": tiny_sdxl,
    "sdxl_encoded_empty": lambda folder: tiny_sdxl(
        folder, scheduler="ddim", force_zeros_for_empty_prompt=False
    ),
    "sd3": tiny_sd3,
    "sd3_t5": lambda folder: tiny_sd3(folder, t5=True),
}
ONE_EACH = ["sd", "sdxl", "sd3"]
SIZES = [(64, 48, 0, 8, 32, 32)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Pipeline folders by kind, built when first asked for; read them, never write to them."""
    root = tmp_path_factory.mktemp("pipelines")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else KINDS[kind](root / kind)

    return folder


def plain(folder: Path) -> Any:
    """The pipeline by diffusers alone."""
    from diffusers import DiffusionPipeline

    index = json.loads((folder / "model_index.json").read_text())
    absent = {k: None for k, v in index.items() if v == [None, None]}
    pipe = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(pipe: Any, prompts: list[str], seeds: list[int], **options: Any) -> Tensor:
    """Images of the plain pipeline's call."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    images = pipe(prompts, generator=generators, num_inference_steps=3, output_type="pt", **options).images
    return images.float()


def noisy(loaded: LoadedPipeline, rows: int, seed: int = 0) -> Tensor:
    channels = loaded.denoiser.config.in_channels  # type: ignore[union-attr]
    return torch.randn(rows, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def shake(loaded: LoadedPipeline, names: str = "") -> None:
    """Move every trainable weight, as training would."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in loaded.denoiser.named_parameters():
        if parameter.requires_grad and names in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def conditions_of(loaded: LoadedPipeline, prompts: list[str]) -> Conditions:
    conditions = encode_prompts(loaded, prompts)
    return conditions.with_sizes(SIZES) if loaded.family == "sdxl" else conditions


# -- loading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_network_is_trainable_and_everything_is_in_eval_mode(
    kind: str, folders: Callable[[str], Path]
) -> None:
    loaded = load_pipeline(str(folders(kind)))
    assert loaded.family == kind.split("_")[0]
    assert all(p.requires_grad for p in loaded.denoiser.parameters())
    for name, part in loaded.pipe.components.items():
        if isinstance(part, torch.nn.Module):
            assert not any(module.training for module in part.modules()), name
            if part is not loaded.denoiser:
                assert not any(p.requires_grad for p in part.parameters()), name
    frozen = load_pipeline(str(folders(kind)), trainable=False, lora=LoraSettings())
    assert not any(p.requires_grad for p in frozen.denoiser.parameters())
    assert frozen.adapter is None


def test_dropout_is_off_even_in_train_mode(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = tiny_sd(tmp_path / "sd")
    config = json.loads((folder / "unet/config.json").read_text()) | {"dropout": 0.5}
    (folder / "unet/config.json").write_text(json.dumps(config))
    assert any(m.p == 0.5 for m in UNet2DConditionModel.from_pretrained(folder / "unet").modules()
               if isinstance(m, torch.nn.Dropout))  # fmt: skip
    loaded = load_pipeline(str(folder))
    loaded.denoiser.train()
    x, conditions = noisy(loaded, 1), conditions_of(loaded, ["a"])
    first, second = (denoise("sd", loaded.denoiser, x, torch.tensor(5), conditions) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_dtype_auto_is_that_of_the_networks_file(tmp_path: Path) -> None:
    folder = tiny_sd3(tmp_path / "sd3")
    assert load_pipeline(str(folder)).denoiser.dtype == torch.float32
    pipe = plain(folder)
    pipe.transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    loaded = load_pipeline(str(folder), lora=LoraSettings(r=2))
    assert loaded.pipe.text_encoder.dtype == torch.bfloat16
    assert loaded.vae.dtype == torch.float32
    kinds = {(p.dtype, p.requires_grad) for p in loaded.denoiser.parameters()}
    assert kinds == {(torch.bfloat16, False), (torch.float32, True)}
    conditions = encode_prompts(loaded, PROMPTS)
    assert conditions.tensors["prompt_embeds"].dtype == torch.bfloat16
    out = denoise("sd3", loaded.denoiser, noisy(loaded, 3), torch.tensor(500.0), conditions)
    out.float().square().mean().backward()
    assert all(p.grad is not None for p in adapter_parameters(loaded.denoiser, "default").values())
    assert generate_images(loaded, conditions, [0, 1, 2], num_inference_steps=2).isfinite().all()
    assert load_pipeline(str(folder), dtype="float32").denoiser.dtype == torch.float32


def test_sources_that_are_no_trainable_pipeline(tmp_path: Path, folders: Callable[[str], Path]) -> None:
    assert is_pipeline(str(folders("sd")))
    assert not is_pipeline(str(tmp_path))
    assert not is_pipeline(str(tmp_path / "nowhere"))
    assert not is_pipeline("not-a-hub-id")
    assert check_pipeline_source(str(folders("sdxl"))) == "sdxl"
    with pytest.raises(FileNotFoundError, match=r"no pipeline folder at .*nowhere"):
        load_pipeline(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"needed model_index\.json.*found config\.json"):
        load_pipeline(str(tmp_path))
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    with pytest.raises(FileNotFoundError, match="is a LoRA, not a pipeline"):
        load_pipeline(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match=r"FluxPipeline.*StableDiffusionPipeline, StableDiffusionXL"):
        load_pipeline(str(tmp_path))


def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path) -> None:
    folder = tiny_sd(tmp_path / "sd")
    (folder / "unet/diffusion_pytorch_model.safetensors").rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(OSError, match="no safetensors weights"):
        load_pipeline(str(folder))


def test_distilled_guidance_and_lora_dropout_are_refused(tmp_path: Path) -> None:
    folder = tiny_sd(tmp_path / "sd")
    with pytest.raises(ValueError, match="lora_dropout=0"):
        load_pipeline(str(folder), lora=LoraSettings(dropout=0.1))
    pipe = plain(folder)
    type(pipe.unet).from_config(pipe.unet.config, time_cond_proj_dim=8).save_pretrained(folder / "unet")
    with pytest.raises(ValueError, match="time_cond_proj_dim"):
        load_pipeline(str(folder))


# -- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_encoded_as_the_pipeline_does(kind: str, folders: Callable[[str], Path]) -> None:
    loaded = load_pipeline(str(folders(kind)))
    pipe = plain(folders(kind))
    extra = {"sd": {}, "sdxl": {}, "sd3": {"prompt_2": None, "prompt_3": None}}[loaded.family]
    with torch.no_grad():
        out = pipe.encode_prompt(
            prompt=PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **extra
        )
    mine = encode_prompts(loaded, PROMPTS, batch_size=2)
    empty = encode_unconditional(loaded)
    names = ["prompt_embeds"] if loaded.family == "sd" else ["prompt_embeds", "pooled_prompt_embeds"]
    assert list(mine.tensors) == list(empty.tensors) == names
    for k, name in enumerate(names):
        torch.testing.assert_close(mine.tensors[name], out[2 * k], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(empty.tensors[name], out[2 * k + 1][:1], rtol=1e-5, atol=1e-5)
        assert not mine.tensors[name].requires_grad
    # only SDXL makes a difference between the empty text and no text
    zeros = not empty.tensors["prompt_embeds"].any()
    assert zeros == (kind == "sdxl")
    assert torch.equal(mine[[1]].tensors["prompt_embeds"], empty.tensors["prompt_embeds"]) or zeros


def test_conditions_are_rows_that_survive_a_file(tmp_path: Path) -> None:
    tensors = {"prompt_embeds": torch.arange(24.0).view(3, 4, 2), "pooled_prompt_embeds": torch.rand(3, 5)}
    conditions = Conditions(tensors).with_sizes([(1023, 1, 2, 3, 4, 5)])
    conditions.save(tmp_path / "c.safetensors")
    again = Conditions.load(tmp_path / "c.safetensors")
    assert again.tensors.keys() == conditions.tensors.keys()
    rows = Conditions.cat([conditions, again])[[4, 0, 0]]
    assert torch.equal(rows.tensors["prompt_embeds"], tensors["prompt_embeds"][[1, 0, 0]])
    assert torch.equal(conditions[torch.tensor([False, True, False])].tensors["pooled_prompt_embeds"],
                       tensors["pooled_prompt_embeds"][1:2])  # fmt: skip
    half = conditions.to(dtype=torch.bfloat16)
    assert half.tensors["prompt_embeds"].dtype == torch.bfloat16
    assert half.tensors["time_ids"].tolist()[2] == [1023, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="same number of rows"):
        Conditions({"a": torch.zeros(2), "b": torch.zeros(3)})
    with pytest.raises(ValueError, match="1 or 3 rows of 6"):
        conditions.with_sizes([(1, 2, 3, 4, 5, 6)] * 2)
    with pytest.raises(ValueError, match="same names"):
        Conditions.cat([conditions, Conditions(tensors)])
    with pytest.raises(TypeError, match=r"by a list, \[1\]"):
        conditions[1]  # type: ignore[index]


def test_cut_prompts_are_counted(
    folders: Callable[[str], Path], recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load_pipeline(str(folders("sd")))
    capfd.readouterr()
    encode_prompts(loaded, ["x" * 75, ""], batch_size=1)
    assert not [w for w in recwarn if "tokens" in str(w.message)]
    with pytest.warns(UserWarning, match="2 of 3 prompts have more than 77 tokens"):
        encode_prompts(loaded, ["x" * 76, "", PROMPTS[2]], batch_size=1)
    assert "truncated" not in capfd.readouterr().err


def test_prompts_must_be_a_list(folders: Callable[[str], Path]) -> None:
    loaded = load_pipeline(str(folders("sd")))
    for wrong in ("one text", []):
        with pytest.raises(ValueError, match="list of one or more texts"):
            encode_prompts(loaded, wrong)


# -- images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ONE_EACH)
def test_latents_are_scaled_as_the_pipeline_decodes_them(kind: str, folders: Callable[[str], Path]) -> None:
    loaded, pipe = load_pipeline(str(folders(kind))), plain(folders(kind))
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):  # must not reach the VAE
        mean, std = encode_images(loaded, pixels)
        images = decode_latents(loaded, mean)
    with torch.no_grad():
        posterior = pipe.vae.encode(pixels).latent_dist
    scaling, shift = {"sd": (0.18215, 0.0), "sdxl": (0.13025, 0.0), "sd3": (1.5305, 0.0609)}[kind]
    torch.testing.assert_close(mean, (posterior.mean - shift) * scaling)
    torch.testing.assert_close(std, posterior.std * scaling)
    # the pipeline's own decoding, by a sampling of no steps
    factor, channels = pipe.vae_scale_factor, mean.shape[1]
    assert mean.shape == (2, channels, 32 // factor, 48 // factor)
    with torch.no_grad():
        raw = pipe.vae.decode(posterior.mean, return_dict=False)[0]
    torch.testing.assert_close(
        images, pipe.image_processor.postprocess(raw, output_type="pt"), rtol=0, atol=1e-5
    )
    assert images.min() >= 0
    assert images.max() <= 1
    with pytest.raises(ValueError, match=r"divisible by 4.*\(2, 3, 30, 32\)"):
        encode_images(loaded, torch.zeros(2, 3, 30, 32))


def test_channel_statistics_of_an_sdxl_vae(tmp_path: Path) -> None:
    folder = tiny_sdxl(tmp_path / "xl", scheduler="ddim")
    config = json.loads((folder / "vae/config.json").read_text())
    config |= {"latents_mean": [-1.0, 0.5, 2.0, 0.0], "latents_std": [5.0, 6.0, 7.0, 8.0]}
    (folder / "vae/config.json").write_text(json.dumps(config))
    loaded = load_pipeline(str(folder))
    mean, _ = encode_images(loaded, torch.rand(1, 3, 32, 32) * 2 - 1)
    mine = generate_images(loaded, ["a"], [1], num_inference_steps=3, guidance_scale=4.0)
    torch.testing.assert_close(
        mine, sampled(plain(folder), ["a"], [1], guidance_scale=4.0), rtol=0, atol=1e-5
    )
    z = loaded.vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.mean
    ours, _ = encode_images(loaded, torch.zeros(1, 3, 32, 32))
    expected = (z[0, 2] - 2.0) * 0.13025 / 7.0
    torch.testing.assert_close(ours[0, 2], expected)
    assert mean.shape == (1, 4, 8, 8)


# -- the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("kind", ["sd", "sd_v", "sdxl", "sdxl_encoded_empty", "sd3", "sd3_t5"])
def test_own_loop_equals_the_pipelines(kind: str, guidance: float, folders: Callable[[str], Path]) -> None:
    """Three steps by `guided_denoise` and the scheduler give the latents of the pipeline's call."""
    loaded, pipe = load_pipeline(str(folders(kind))), plain(folders(kind))
    prompts = [PROMPTS[0], PROMPTS[2]]
    conditions, empty = encode_prompts(loaded, prompts), encode_unconditional(loaded)
    options: dict[str, Any] = {}
    if loaded.family == "sdxl":
        conditions = conditions.with_sizes(SIZES)
        options = {"original_size": (64, 48), "crops_coords_top_left": (0, 8), "target_size": (32, 32)}
    start = noisy(loaded, 2)
    expected = pipe(
        prompts,
        latents=start,
        num_inference_steps=3,
        guidance_scale=guidance,
        output_type="latent",
        **options,
    ).images
    scheduler = loaded.scheduler
    scheduler.set_timesteps(3)
    x = start * getattr(scheduler, "init_noise_sigma", 1.0)
    with torch.no_grad():
        for t in scheduler.timesteps:
            scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
            out = guided_denoise(loaded.family, loaded.denoiser, scale(x, t), t, conditions, empty, guidance)
            x = scheduler.step(out, t, x, return_dict=False)[0]
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ONE_EACH)
def test_examples_do_not_mix(kind: str, folders: Callable[[str], Path]) -> None:
    """A timestep, prompt and size for each example: the batch is its examples one by one."""
    loaded = load_pipeline(str(folders(kind)))
    conditions = encode_prompts(loaded, PROMPTS)
    if kind == "sdxl":
        conditions = conditions.with_sizes(
            [(32, 32, 0, 0, 32, 32), (512, 64, 0, 8, 32, 32), (99, 1, 2, 3, 4, 5)]
        )
    x, t = noisy(loaded, 3), torch.tensor([1, 500, 999])
    with torch.no_grad():
        whole = denoise(loaded.family, loaded.denoiser, x, t, conditions)
        for row in range(3):
            alone = denoise(loaded.family, loaded.denoiser, x[[row]], t[[row]], conditions[[row]].tensors)
            torch.testing.assert_close(whole[[row]], alone, rtol=1e-4, atol=1e-5)
    for name in conditions.tensors:  # each condition reaches the network
        other = Conditions(conditions.tensors | {name: conditions.tensors[name].flip(0)})
        with torch.no_grad():
            changed = denoise(loaded.family, loaded.denoiser, x, t, other)
        assert (changed - whole)[0].abs().max() > 1e-5, name


def test_guidance_of_one_is_a_single_forward(folders: Callable[[str], Path]) -> None:
    loaded = load_pipeline(str(folders("sd")))
    rows: list[int] = []
    loaded.denoiser.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    conditions, empty = encode_prompts(loaded, PROMPTS), encode_unconditional(loaded)
    with torch.no_grad():
        for w in (1.0, 2.0, 0.0):
            out = guided_denoise(
                "sd", loaded.denoiser, noisy(loaded, 3), torch.tensor(9), conditions, empty, w
            )
        assert rows == [3, 6, 6]
        nothing = denoise("sd", loaded.denoiser, noisy(loaded, 3), torch.tensor(9), empty[[0, 0, 0]])
    torch.testing.assert_close(out, nothing, rtol=1e-4, atol=1e-5)


def test_missing_conditions_are_named(folders: Callable[[str], Path]) -> None:
    loaded = load_pipeline(str(folders("sdxl")))
    conditions = encode_prompts(loaded, PROMPTS)
    with pytest.raises(ValueError, match=r"needs the conditions .*time_ids; given .*Conditions\.with_sizes"):
        denoise("sdxl", loaded.denoiser, noisy(loaded, 3), torch.tensor(1), conditions)
    with pytest.raises(ValueError, match="2 latents need 2 rows"):
        denoise("sdxl", loaded.denoiser, noisy(loaded, 2), torch.tensor(1), conditions.with_sizes(SIZES))


# -- adapters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ONE_EACH)
def test_adapters_start_as_nothing_and_switch_off(kind: str, folders: Callable[[str], Path]) -> None:
    base = load_pipeline(str(folders(kind)), trainable=False)
    loaded = load_pipeline(str(folders(kind)), lora=LoraSettings(r=2, alpha=6))
    assert loaded.model is loaded.denoiser
    trained = [name for name, p in loaded.denoiser.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    streams = ("add_q_proj", "to_add_out", "to_out.0") if kind == "sd3" else ("attn1.to_q", "attn2.to_out.0")
    assert all(any(stream in name for name in trained) for stream in streams)
    conditions = conditions_of(base, PROMPTS)
    x, t = noisy(base, 3), torch.tensor(700)

    def out(one: LoadedPipeline) -> Tensor:
        with torch.no_grad():
            return denoise(one.family, one.denoiser, x, t, conditions)

    expected = out(base)
    torch.testing.assert_close(out(loaded), expected, rtol=0, atol=0)
    shake(loaded)
    moved = out(loaded)
    assert (moved - expected).abs().max() > 1e-3
    with loaded.as_reference():
        torch.testing.assert_close(out(loaded), expected, rtol=0, atol=0)
    torch.testing.assert_close(out(loaded), moved, rtol=0, atol=0)
    with pytest.raises(ValueError, match="without adapters"):
        base.as_reference()


def test_a_second_adapter_is_a_frozen_copy(folders: Callable[[str], Path]) -> None:
    loaded = load_pipeline(str(folders("sd3")), lora=LoraSettings(r=2))
    shake(loaded)
    network = loaded.denoiser
    flags = {name: p.requires_grad for name, p in network.named_parameters()}
    conditions, x, t = encode_prompts(loaded, PROMPTS), noisy(loaded, 3), torch.tensor(300.0)

    def out() -> Tensor:
        with torch.no_grad():
            return denoise("sd3", network, x, t, conditions)

    add_frozen_adapter(network, "ema")
    assert all(p.requires_grad == flags.get(name, False) for name, p in network.named_parameters())
    before = out()
    with use_adapter(network, "ema"):
        torch.testing.assert_close(out(), before, rtol=0, atol=0)
    flags = {name: p.requires_grad for name, p in network.named_parameters()}
    shake(loaded)
    after = out()
    assert (after - before).abs().max() > 1e-3

    def check_state() -> None:
        assert {name: p.requires_grad for name, p in network.named_parameters()} == flags
        torch.testing.assert_close(out(), after, rtol=0, atol=0)

    with use_adapter(network, "ema"):
        torch.testing.assert_close(out(), before, rtol=0, atol=0)
        assert {name: p.requires_grad for name, p in network.named_parameters()} == flags
        with loaded.as_reference():
            assert (out() - before).abs().max() > 1e-3
        torch.testing.assert_close(out(), before, rtol=0, atol=0)
    check_state()
    with loaded.as_reference():
        off = out()
        with use_adapter(network, "ema"):
            torch.testing.assert_close(out(), before, rtol=0, atol=0)
        torch.testing.assert_close(out(), off, rtol=0, atol=0)
    check_state()
    for name in ("ema", None):
        with pytest.raises(RuntimeError, match="midway"), use_adapter(network, name):
            raise RuntimeError("midway")
        check_state()
    with (
        pytest.raises(ValueError, match="no adapter 'mean': it has default, ema"),
        use_adapter(network, "mean"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="no adapters: it has none"),
        use_adapter(load_pipeline(str(folders("sd3"))).denoiser, None),
    ):
        pass
    mean, now = adapter_parameters(network, "ema"), adapter_parameters(network, "default")
    assert mean.keys() == now.keys()
    assert len(mean) == len([n for n in flags if ".lora_" in n]) // 2


# -- samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_the_plain_pipelines(kind: str, folders: Callable[[str], Path]) -> None:
    loaded = load_pipeline(str(folders(kind)))
    seeds = [5, 6, 7]
    timesteps = loaded.scheduler.timesteps
    mine = generate_images(loaded, PROMPTS, seeds, num_inference_steps=3, guidance_scale=4.0)
    assert loaded.scheduler.timesteps is timesteps  # training reads this object
    expected = sampled(plain(folders(kind)), PROMPTS, seeds, guidance_scale=4.0)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-4)
    assert mine.shape == (3, 3, 32, 32)
    one_by_one = generate_images(
        loaded,
        encode_prompts(loaded, PROMPTS),
        seeds,
        num_inference_steps=3,
        guidance_scale=4.0,
        batch_size=1,
    )
    torch.testing.assert_close(mine, one_by_one, rtol=0, atol=1e-4)
    other = generate_images(loaded, PROMPTS, [8, 9, 10], num_inference_steps=3, guidance_scale=4.0)
    assert (mine - other).abs().mean() > 0.01


def test_samples_without_guidance_and_with_noise(folders: Callable[[str], Path]) -> None:
    from diffusers import DDIMScheduler

    loaded, pipe = load_pipeline(str(folders("sd"))), plain(folders("sd"))
    given = {"num_inference_steps": 3, "guidance_scale": 1.0, "eta": 1.0, "height": 32, "width": 48}
    mine = generate_images(loaded, PROMPTS, [1, 2, 3], batch_size=2, **given)
    plain_options = {k: v for k, v in given.items() if k != "num_inference_steps"}
    torch.testing.assert_close(mine, sampled(pipe, PROMPTS, [1, 2, 3], **plain_options), rtol=0, atol=1e-4)
    assert mine.shape == (3, 3, 32, 48)
    xl = load_pipeline(str(folders("sdxl")))
    with pytest.raises(ValueError, match=r"eta=1 .* EulerDiscreteScheduler"):
        generate_images(xl, PROMPTS, [1, 2, 3], eta=1.0)
    ddim = DDIMScheduler.from_config(xl.scheduler.config)
    assert (
        generate_images(xl, PROMPTS, [1, 2, 3], num_inference_steps=2, eta=1.0, scheduler=ddim).shape[0] == 3
    )
    with pytest.raises(ValueError, match="3 prompts need as many seeds; given 2"):
        generate_images(xl, PROMPTS, [1, 2])


# -- saving --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "sd3_t5"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_trained_network_is_saved_as_a_whole_pipeline(
    kind: str, sharded: bool, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    loaded = load_pipeline(str(folders(kind)))
    shake(loaded)
    expected = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=3)
    free(loaded, "vae", "text_encoders")
    state = None
    if sharded:
        state = {k: v.clone() for k, v in loaded.denoiser.state_dict().items()}
        for parameter in loaded.denoiser.parameters():
            parameter.data.zero_()  # as if the weights were elsewhere
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").touch()
    save_trained(folder, loaded, state)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert not (folder / "old.txt").exists()
    pipe = plain(folder)
    assert type(pipe) is type(loaded.pipe)
    torch.testing.assert_close(
        sampled(pipe, PROMPTS, [1, 2, 3], guidance_scale=7.5), expected, rtol=0, atol=1e-4
    )
    for file in (folders(kind) / "vae").iterdir():
        assert (folder / "vae" / file.name).read_bytes() == file.read_bytes()
    index = {p: json.loads((p / "model_index.json").read_text()) for p in (folder, folders(kind))}
    assert index[folder] == index[folders(kind)]
    again = generate_images(load_pipeline(str(folder)), PROMPTS, [1, 2, 3], num_inference_steps=3)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ONE_EACH)
@pytest.mark.parametrize("sharded", [False, True])
def test_trained_adapters_are_saved_as_a_lora(
    kind: str, sharded: bool, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    loaded = load_pipeline(str(folders(kind)), lora=LoraSettings(r=4, alpha=6))
    add_frozen_adapter(loaded.denoiser, "ema")  # must not be saved
    base = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=3)
    shake(loaded)
    expected = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=3)
    assert (expected - base).abs().max() > 1e-2
    state = None
    if sharded:
        state = {k: v.clone() for k, v in loaded.denoiser.state_dict().items()}
        for parameter in adapter_parameters(loaded.denoiser, "default").values():
            parameter.data.zero_()
    save_trained(tmp_path / "model", loaded, state)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["pytorch_lora_weights.safetensors"]
    pipe = plain(folders(kind))
    pipe.load_lora_weights(tmp_path / "model")
    torch.testing.assert_close(
        sampled(pipe, PROMPTS, [1, 2, 3], guidance_scale=7.5), expected, rtol=0, atol=1e-4
    )
    tensors = load_file(tmp_path / "model/pytorch_lora_weights.safetensors")
    assert all(t.dtype == torch.float32 for t in tensors.values())
    assert len(tensors) == len(adapter_parameters(loaded.denoiser, "default"))


def test_an_interrupted_save_keeps_the_old_folder(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_pipeline(str(folders("sd")))
    save_trained(tmp_path / "model", loaded)

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", fail)
        with pytest.raises(OSError, match="disk full"):
            save_trained(tmp_path / "model", loaded)
    plain(tmp_path / "model")
    save_trained(tmp_path / "model", loaded)  # what was left over is no obstacle
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_safety_checker_is_kept_unless_it_is_a_pickle(tmp_path: Path) -> None:
    folder = tiny_sd(tmp_path / "sd")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    checker = folder / "safety_checker"
    checker.mkdir()
    (checker / "config.json").write_text("{}")
    (checker / "pytorch_model.bin").touch()
    (folder / "vae/diffusion_pytorch_model.fp16.safetensors").touch()
    loaded = load_pipeline(str(folder))
    assert loaded.pipe.safety_checker is None
    write_trained(tmp_path / "one", loaded)
    plain(tmp_path / "one")
    assert not (tmp_path / "one/safety_checker").exists()
    assert not (tmp_path / "one/vae/diffusion_pytorch_model.fp16.safetensors").exists()
    (checker / "model.safetensors").touch()
    write_trained(tmp_path / "two", loaded)
    assert sorted(p.name for p in (tmp_path / "two/safety_checker").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    saved = json.loads((tmp_path / "two/model_index.json").read_text())
    assert saved["safety_checker"] == index["safety_checker"]


# -- memory and identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "sd3_t5"])
def test_freed_parts_come_back_when_needed(kind: str, folders: Callable[[str], Path]) -> None:
    loaded = load_pipeline(str(folders(kind)))
    shake(loaded)
    network = loaded.denoiser
    conditions, images = encode_prompts(loaded, PROMPTS), generate_images(loaded, PROMPTS, [1, 2, 3])
    latents, _ = encode_images(loaded, images * 2 - 1)
    n_encoders = len(loaded.text_encoders)
    assert n_encoders == {"sd": 1, "sdxl": 2, "sd3": 2, "sd3_t5": 3}[kind]
    free(loaded, "vae", "text_encoders")
    assert loaded.vae is None
    assert loaded.text_encoders == {}
    again = encode_prompts(loaded, PROMPTS)
    assert all(torch.equal(again.tensors[name], value) for name, value in conditions.tensors.items())
    assert torch.equal(encode_images(loaded, images * 2 - 1)[0], latents)
    torch.testing.assert_close(generate_images(loaded, PROMPTS, [1, 2, 3]), images, rtol=0, atol=1e-4)
    assert loaded.vae is None
    assert loaded.text_encoders == {}
    with borrowed(loaded, "vae"):
        assert loaded.vae is not None
        vae = loaded.vae
        decode_latents(loaded, latents)
        assert loaded.vae is vae
    restore(loaded, "text_encoders")
    assert loaded.vae is None
    assert len(loaded.text_encoders) == n_encoders
    assert not any(p.requires_grad for part in loaded.text_encoders.values() for p in part.parameters())
    assert loaded.denoiser is network
    with pytest.raises(ValueError, match="vae or text_encoders"):
        free(loaded, "unet")


def test_samples_from_given_conditions_need_no_text_encoder(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_pipeline(str(folders("sdxl")))
    conditions, empty = encode_prompts(loaded, PROMPTS), encode_unconditional(loaded)
    expected = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=2)
    free(loaded, "text_encoders")
    monkeypatch.setattr("prefopt.models.pipelines._from_files", None)  # nothing may be read
    mine = generate_images(loaded, conditions, [1, 2, 3], num_inference_steps=2, unconditional=empty)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_identities_follow_what_they_stand_for(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "sdxl"
    shutil.copytree(folders("sdxl"), folder)

    def both(where: Path, **options: Any) -> tuple[str, str]:
        loaded = load_pipeline(str(where), **options)
        return vae_identity(loaded), text_identity(loaded)

    vae, text = both(folders("sdxl"))
    used = load_pipeline(str(folder))
    shake(used)
    generate_images(used, PROMPTS, [1, 2, 3], num_inference_steps=2)
    assert (vae_identity(used), text_identity(used)) == (vae, text)  # other place, use and network: the same
    free(used, "vae", "text_encoders")
    assert (vae_identity(used), text_identity(used)) == (vae, text)
    unseen = load_pipeline(str(folder))
    free(unseen, "vae", "text_encoders")
    assert (vae_identity(unseen), text_identity(unseen)) == (vae, text)
    assert both(folder, dtype="bfloat16")[0] == vae
    assert both(folder, dtype="bfloat16")[1] != text

    def edit(file: str, **values: Any) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    edit("vae/config.json", scaling_factor=1.0)
    assert both(folder)[0] != vae
    assert both(folder)[1] == text
    edit("model_index.json", force_zeros_for_empty_prompt=False)
    assert both(folder)[1] != text
    edit("model_index.json", force_zeros_for_empty_prompt=True)
    assert both(folder)[1] == text
    edit("tokenizer_2/tokenizer_config.json", model_max_length=60)
    assert both(folder)[1] != text
