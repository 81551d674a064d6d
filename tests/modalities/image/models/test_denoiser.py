"""Networks behind their one interface, under guidance and with adapters, against plain diffusers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from modalities.image.models.pipeline_cases import (
    ONE_EACH,
    PROMPTS,
    SIZES,
    Folders,
    conditions_of,
    noisy,
    plain,
    shake,
)
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.steps import GuidedNetwork
from prefopt.modalities.image.models.denoiser import Conditions, denoise
from prefopt.modalities.image.models.pipelines import LoadedPipeline, load_pipeline
from prefopt.modalities.image.models.tensors import encode_prompts, encode_unconditional
from prefopt.modalities.image.store import CachedImages
from prefopt.models.ema import EMA
from prefopt.models.loading import LoraSettings
from prefopt.models.networks import adapter_parameters, adapters_off

pytestmark = pytest.mark.filterwarnings("ignore:.*prompts have more than 77 tokens")


# -- the network ---------------------------------------------------------------------------------------------


def guided_network(loaded: LoadedPipeline, prompts: list[str], scale: float) -> GuidedNetwork:
    """As methods that sample build it; SDXL is told other sizes than the image's own."""
    store = CachedImages(loaded, 32, "center")
    store.add_prompts(prompts)
    return GuidedNetwork(
        process=Process.from_scheduler(loaded.scheduler),
        network=partial(denoise, loaded.family),
        conditions=lambda texts: store.conditions(texts, SIZES * len(texts)),
        scale=scale,
    )


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("kind", ["sd", "sd_v", "sdxl", "sdxl_encoded_empty", "sd3", "sd3_t5"])
def test_own_loop_equals_the_pipelines(kind: str, guidance: float, folders: Folders) -> None:
    """Three steps by `GuidedNetwork` and the scheduler give the latents of the pipeline's call."""
    loaded, pipe = load_pipeline(str(folders(kind))), plain(folders(kind))
    prompts = [PROMPTS[0], PROMPTS[2]]
    options: dict[str, Any] = {}
    if loaded.family == "sdxl":
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
    network = guided_network(loaded, prompts, guidance)
    conditions = network.prepare(prompts)
    scheduler = loaded.scheduler
    scheduler.set_timesteps(3)
    x = start * getattr(scheduler, "init_noise_sigma", 1.0)
    with torch.no_grad():
        for t in scheduler.timesteps:
            level = t.double() / 1000 if network.process.kind == "flow" else t
            scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
            out = network(loaded.denoiser, scale(x, t), level.expand(2), conditions)
            x = scheduler.step(out, t, x, return_dict=False)[0]
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ONE_EACH)
def test_examples_do_not_mix(kind: str, folders: Folders) -> None:
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


@pytest.mark.usefixtures("own_cache")
def test_guidance_of_one_is_a_single_forward(folders: Folders) -> None:
    loaded = load_pipeline(str(folders("sd")))
    rows: list[int] = []
    loaded.denoiser.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    x, t = noisy(loaded, 3), torch.tensor([9, 9, 9])
    with torch.no_grad():
        for w in (1.0, 2.0, 0.0):
            network = guided_network(loaded, PROMPTS, w)
            out = network(loaded.denoiser, x, t, network.prepare(PROMPTS))
        assert rows == [3, 6, 6]
        nothing = denoise("sd", loaded.denoiser, x, t, encode_unconditional(loaded)[[0, 0, 0]])
    torch.testing.assert_close(out, nothing, rtol=1e-4, atol=1e-5)


def test_missing_conditions_are_named(folders: Folders) -> None:
    loaded = load_pipeline(str(folders("sdxl")))
    conditions = encode_prompts(loaded, PROMPTS)
    with pytest.raises(ValueError, match=r"needs the conditions .*time_ids; given .*Conditions\.with_sizes"):
        denoise("sdxl", loaded.denoiser, noisy(loaded, 3), torch.tensor(1), conditions)
    with pytest.raises(ValueError, match="2 latents need 2 rows"):
        denoise("sdxl", loaded.denoiser, noisy(loaded, 2), torch.tensor(1), conditions.with_sizes(SIZES))


# -- adapters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ONE_EACH)
def test_adapters_start_as_nothing_and_switch_off(kind: str, folders: Folders) -> None:
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


def test_an_average_of_adapters_takes_their_place_for_a_while(folders: Folders) -> None:
    loaded = load_pipeline(str(folders("sd3")), lora=LoraSettings(r=2))
    shake(loaded)
    network = loaded.denoiser
    flags = {name: p.requires_grad for name, p in network.named_parameters()}
    conditions, x, t = encode_prompts(loaded, PROMPTS), noisy(loaded, 3), torch.tensor(300.0)

    def out() -> Tensor:
        with torch.no_grad():
            return denoise("sd3", network, x, t, conditions)

    before, ema = out(), EMA(network, 0.9)
    with ema.swapped_in():
        torch.testing.assert_close(out(), before, rtol=0, atol=0)
    shake(loaded)
    after = out()
    assert (after - before).abs().max() > 1e-3

    def check_state() -> None:
        assert {name: p.requires_grad for name, p in network.named_parameters()} == flags
        torch.testing.assert_close(out(), after, rtol=0, atol=0)

    with ema.swapped_in():
        torch.testing.assert_close(out(), before, rtol=0, atol=0)
        assert {name: p.requires_grad for name, p in network.named_parameters()} == flags
        with loaded.as_reference():
            assert (out() - before).abs().max() > 1e-3
        torch.testing.assert_close(out(), before, rtol=0, atol=0)
    check_state()
    with loaded.as_reference():
        off = out()
        with ema.swapped_in(), adapters_off(network):
            torch.testing.assert_close(out(), off, rtol=0, atol=0)
        torch.testing.assert_close(out(), off, rtol=0, atol=0)
        assert {name: p.requires_grad for name, p in network.named_parameters()} == flags
    check_state()
    for inside in (ema.swapped_in, loaded.as_reference):
        with pytest.raises(RuntimeError, match="midway"), inside():
            raise RuntimeError("midway")
        check_state()
    with (
        pytest.raises(ValueError, match="no adapters to switch off"),
        adapters_off(load_pipeline(str(folders("sd3"))).denoiser),
    ):
        pass
    assert len(adapter_parameters(network, "default")) == len([n for n in flags if ".lora_" in n])
