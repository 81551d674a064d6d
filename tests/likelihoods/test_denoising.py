"""Denoising errors against plain diffusers, one item at a time; what is drawn, shared and part of a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.training_utils import compute_snr
from torch import Tensor
from torch.testing import assert_close

import tiny_pipelines
from prefopt.comparisons import Comparison, Encoded
from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import Process
from prefopt.modalities.image import store as image_store
from prefopt.modalities.image.models.denoiser import denoise
from prefopt.modalities.image.models.pipelines import LoadedPipeline, load_pipeline
from prefopt.modalities.image.store import CachedImages
from prefopt.sources.pictures import ImageRef, as_ref, decode, to_pixels

PROMPTS = ("a red cube", "two cats on a mat")
PIPELINES: dict[str, Callable[[Path], Path]] = {
    "epsilon": tiny_pipelines.tiny_sd,
    "v": partial(tiny_pipelines.tiny_sd, prediction_type="v_prediction", scheduler="pndm"),
    "x0": partial(tiny_pipelines.tiny_sd, prediction_type="sample"),
    "sdxl": tiny_pipelines.tiny_sdxl,
    "flow": tiny_pipelines.tiny_sd3,
}


@dataclass(frozen=True)
class World:
    """A pipeline, two pairs of images in its store, and plain diffusers beside it."""

    folder: Path
    loaded: LoadedPipeline
    store: CachedImages
    refs: list[ImageRef]
    examples: list[Encoded[EncodedLatent]]

    def likelihood(self, **options: Any) -> DenoisingLikelihood:
        return DenoisingLikelihood(
            process=Process.from_scheduler(self.loaded.scheduler),
            network=partial(denoise, self.loaded.family),
            store=self.store,
            **options,
        )

    def items(self, likelihood: DenoisingLikelihood, epoch: int) -> list[EncodedLatent]:
        return [item for e in self.examples for item in likelihood.at(e, epoch).items]

    @torch.no_grad()
    def scores(self, likelihood: DenoisingLikelihood, items: Sequence[EncodedLatent]) -> Tensor:
        return likelihood.score(self.loaded.model, likelihood.plan(items)).logp_N


def encoded_pair(
    name: str, keys: Sequence[str], prompt: str, size: tuple[int, ...]
) -> Encoded[EncodedLatent]:
    return Encoded(name, tuple(EncodedLatent(key, prompt, size) for key in keys), (Comparison(0, 1),))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """By the name of a prediction; each is made once."""
    root, made = tmp_path_factory.mktemp("worlds"), {}
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 256, (40 + 8 * n, 64 - 8 * n, 3), dtype=np.uint8) for n in range(4)]

    def make(name: str) -> World:
        if name not in made:
            folder = PIPELINES[name](root / name)
            loaded = load_pipeline(str(folder))
            store = CachedImages(loaded, 32, "center")
            refs = [as_ref(image, "image") for image in images]
            assert store.add_images({ref.digest: ref for ref in refs})[1] == {}
            store.add_prompts(PROMPTS)
            sizes = [(40, 64, 0, 9, 32, 32), (300, 200, 4, 0, 32, 32)]
            examples = [
                encoded_pair(f"row-{k}", [ref.digest for ref in refs[2 * k : 2 * k + 2]], prompt, size)
                for k, (prompt, size) in enumerate(zip(PROMPTS, sizes, strict=True))
            ]
            made[name] = World(folder, loaded, store, refs, examples)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(root / "cache"))
        yield make


@pytest.fixture(params=PIPELINES)
def world(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> World:
    return worlds(request.param)


@pytest.fixture
def sd(worlds: Callable[[str], World]) -> World:
    return worlds("epsilon")


# ---- the score, by hand


def plain(world: World) -> Any:
    """The pipeline as diffusers loads it."""
    absent = {"text_encoder_3": None, "tokenizer_3": None} if world.loaded.family == "sd3" else {}
    return diffusers.DiffusionPipeline.from_pretrained(world.folder, **absent)


@torch.no_grad()
def error_by_hand(
    world: World, item: EncodedLatent, x0: Tensor, noise: Tensor, t: int, prompt: str | None = None
) -> float:
    """-MSE of one item, by plain diffusers."""
    pipe = plain(world)
    text = pipe.encode_prompt(item.prompt if prompt is None else prompt, device="cpu", num_images_per_prompt=1,
                              do_classifier_free_guidance=False, **({"prompt_2": None, "prompt_3": None}
                              if world.loaded.family == "sd3" else {}))  # fmt: skip
    x0, noise, time = x0[None], noise[None], torch.tensor([t])
    if world.loaded.family == "sd3":
        # timesteps of the scheduler, noisiest first; t counts from the least noise
        at = pipe.scheduler.timesteps[len(pipe.scheduler.timesteps) - 1 - t][None]
        x_t = pipe.scheduler.scale_noise(x0, at, noise)
        out = pipe.transformer(x_t, timestep=at, encoder_hidden_states=text[0], pooled_projections=text[2])
        return -float((out.sample - (noise - x0)).square().mean())
    training = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    x_t = training.add_noise(x0, noise, time)
    added = None
    if world.loaded.family == "sdxl":
        added = {"text_embeds": text[2], "time_ids": torch.tensor([item.sizes])}
    out = pipe.unet(x_t, time, encoder_hidden_states=text[0], added_cond_kwargs=added).sample
    target = {
        "epsilon": noise,
        "v_prediction": training.get_velocity(x0, noise, time),
        "sample": x0,
    }[training.config.prediction_type]
    return -float((out - target).square().mean())


def test_score_is_minus_the_error_of_plain_diffusers(world):
    likelihood = world.likelihood()
    items = world.items(likelihood, 3)
    plan = likelihood.plan(items)
    with torch.no_grad():
        scores = likelihood.score(world.loaded.model, plan)
    assert scores.logp_NL.shape == (4, 1)
    assert scores.logp_NL.dtype == torch.float32
    for n, item in enumerate(items):
        by_hand = error_by_hand(world, item, plan.x0_NCHW[n], plan.noise_NCHW[n], int(plan.t_N[n]))
        assert float(scores.logp_N[n]) == pytest.approx(by_hand, abs=1e-5)
    assert len({round(float(x), 5) for x in scores.logp_N}) == 4  # or there would be nothing to compare


def test_latents_are_the_vaes(world):
    """Mean and deviation as plain diffusers has them, to half precision."""
    pipe = plain(world)
    shift = (pipe.vae.config.shift_factor or 0) if world.loaded.family == "sd3" else 0
    means, stds = world.store.latents([ref.digest for ref in world.refs])
    for ref, mean, std in zip(world.refs, means, stds, strict=True):
        with torch.no_grad():
            found = pipe.vae.encode(to_pixels(decode(ref), 32).pixels_3HW[None]).latent_dist
        scale = pipe.vae.config.scaling_factor
        assert_close(mean, (found.mean[0] - shift) * scale, rtol=1e-3, atol=1e-5)
        assert_close(std, found.std[0] * scale, rtol=1e-3, atol=1e-5)


def test_gradients_reach_the_network_and_nothing_else(sd):
    likelihood = sd.likelihood()
    score_N = likelihood.score(sd.loaded.model, likelihood.plan(sd.items(likelihood, 0))).logp_N
    grads = torch.autograd.grad(score_N.sum(), [*sd.loaded.model.parameters()], allow_unused=True)
    assert all(g is not None and bool(g.abs().sum() > 0) for g in grads)


def test_autocast_leaves_the_error_in_float32(sd):
    likelihood = sd.likelihood()
    items = sd.items(likelihood, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = sd.scores(likelihood, items)
    assert low.dtype == torch.float32
    assert_close(low, sd.scores(likelihood, items), rtol=0, atol=0.02)
    assert low.bfloat16().float().tolist() != low.tolist()


@pytest.mark.parametrize("name", ["epsilon", "v", "x0"])
def test_error_weights(worlds, name):
    """min_snr as in diffusers' training scripts, snr as the error of the noise."""
    world = worlds(name)
    unweighted = world.likelihood()
    items = [item for epoch in range(4) for item in world.items(unweighted, epoch)]
    t_N = unweighted.plan(items).t_N
    assert t_N.min() < 300 < 700 < t_N.max()
    snr_N = compute_snr(diffusers.DDPMScheduler.from_config(world.loaded.scheduler.config), t_N)
    error_N = world.scores(unweighted, items)
    clamped_N = snr_N.clamp(max=5.0)
    weight_N = {"epsilon": clamped_N / snr_N, "v": clamped_N / (snr_N + 1), "x0": clamped_N}[name]
    found_N = world.scores(world.likelihood(weight="min_snr"), items)
    assert_close(found_N, error_N * weight_N, rtol=1e-4, atol=1e-6)
    weight_N = {"epsilon": torch.ones_like(snr_N), "v": snr_N / (snr_N + 1), "x0": snr_N}[name]
    found_N = world.scores(world.likelihood(weight="snr"), items)
    assert_close(found_N, error_N * weight_N, rtol=1e-4, atol=1e-6)


def test_sizes_reach_sdxl(worlds):
    world = worlds("sdxl")
    likelihood = world.likelihood()
    item = world.items(likelihood, 0)[0]
    others = [replace(item, sizes=(*item.sizes[:k], 17, *item.sizes[k + 1 :])) for k in range(6)]
    scores = world.scores(likelihood, [item, *others])
    assert bool(((scores[1:] - scores[0]).abs() > 1e-6).all())


# ---- draws


def draws(likelihood: DenoisingLikelihood, items: Sequence[EncodedLatent]) -> list[tuple[int, bytes]]:
    """Timestep and noise of each item."""
    plan = likelihood.plan(items)
    return [(int(t), x.numpy().tobytes()) for t, x in zip(plan.t_N, plan.noise_NCHW, strict=True)]


def test_noise_is_shared_within_a_pair_and_nowhere_else(sd):
    likelihood = sd.likelihood()
    found = [draws(likelihood, sd.items(likelihood, epoch)) for epoch in (-1, 0, 1)]
    for first, second, third, fourth in found:
        assert first == second
        assert third == fourth
    assert len({noise for items in found for _, noise in items}) == 6
    assert len({t for items in found for t, _ in items}) == 6
    other_seed = draws(sd.likelihood(seed=1), sd.items(likelihood, 0))
    assert not {noise for _, noise in other_seed} & {noise for items in found for _, noise in items}


def test_scores_depend_on_neither_order_nor_company(world):
    likelihood = world.likelihood(prompt_dropout=0.5)
    items = world.items(likelihood, 0)
    together = world.scores(likelihood, items)
    alone = torch.cat([world.scores(likelihood, [item]) for item in items])
    turned = world.scores(likelihood, items[::-1]).flip(0)
    assert_close(alone, together, rtol=0, atol=1e-6)
    assert_close(turned, together, rtol=0, atol=1e-6)
    plan, again = likelihood.plan(items), likelihood.plan(items[1:2])
    assert torch.equal(plan.x0_NCHW[1], again.x0_NCHW[0])
    assert draws(likelihood, items)[1] == draws(likelihood, items[1:2])[0]


@dataclass
class Paper:
    """A store that notes which prompts are asked for; any latent is 1, with a deviation of 1."""

    shape: tuple[int, int, int] = (1, 2, 2)
    identity: Mapping[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def latents(self, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.ones(len(keys), *self.shape), torch.ones(len(keys), *self.shape)

    def conditions(
        self, prompts: Sequence[str], sizes: Sequence[tuple[int, ...]] | None = None
    ) -> dict[str, Tensor]:
        self.asked += prompts
        return {}


PROCESS = Process.from_scheduler(diffusers.DDPMScheduler())


def on_paper(**options: Any) -> tuple[DenoisingLikelihood, Paper]:
    store = options.pop("store", Paper())
    return DenoisingLikelihood(process=PROCESS, network=denoise, store=store, **options), store


def pairs(n: int) -> list[Encoded[EncodedLatent]]:
    return [encoded_pair(f"row-{k}", ("a", "b"), "a cat", (8, 8, 0, 0, 8, 8)) for k in range(n)]


def test_timesteps_cover_their_range():
    for density, quarter in (("uniform", 0.25), ("logit_normal", 0.136)):  # of draws below 250
        likelihood, _ = on_paper(density=density)
        items = [likelihood.at(e, 0).items[0] for e in pairs(2000)]
        t_N = likelihood.plan(items).t_N
        assert float((t_N < 250).double().mean()) == pytest.approx(quarter, abs=0.03)
        assert t_N.max() > 950


def test_a_draw_next_to_one_is_the_last_timestep(monkeypatch):
    """In float32 it would be 1, which is no draw: one in thirty million would stop the run."""
    from prefopt.likelihoods import denoising

    drawn = denoising.counted_noise
    monkeypatch.setattr(denoising, "counted_noise", lambda *given: (1 - 1e-12, drawn(*given)[1]))
    likelihood, _ = on_paper()
    assert likelihood.plan([likelihood.at(pairs(1)[0], 0).items[0]]).t_N.tolist() == [999]


def test_evaluation_is_fixed_and_no_training_epoch():
    likelihood, _ = on_paper(noise_epochs=2)
    example = pairs(1)[0]
    judged = likelihood.at(example, -1)
    assert judged == likelihood.at(judged, -1)
    trained = {draw for epoch in range(50) for draw in draws(likelihood, likelihood.at(example, epoch).items)}
    assert not trained & set(draws(likelihood, judged.items))
    keys = {likelihood.key(item) for epoch in range(50) for item in likelihood.at(example, epoch).items}
    assert not keys & {likelihood.key(item) for item in judged.items}


def test_noise_epochs_repeat():
    example = pairs(1)[0]
    for period, different in ((None, 6), (1, 1), (4, 4)):
        likelihood, _ = on_paper(noise_epochs=period)
        seen = [likelihood.at(example, epoch) for epoch in range(6)]
        assert len({e.items for e in seen}) == different
        assert len({draws(likelihood, e.items)[0] for e in seen}) == different
        assert likelihood.at(example, -1).items[0].epoch == -1
    assert seen[0] == seen[4]
    assert seen[1] == seen[5]


def test_dropped_prompts():
    likelihood, store = on_paper(prompt_dropout=0.2)
    examples = pairs(1000)
    for epoch in (0, 1):
        likelihood.plan([item for e in examples for item in likelihood.at(e, epoch).items])
    asked = np.array(store.asked).reshape(2, 1000, 2)
    dropped = asked == ""
    assert (dropped[..., 0] == dropped[..., 1]).all()  # winner and loser alike
    assert dropped.mean() == pytest.approx(0.2, abs=0.03)
    both = (dropped[0, :, 0] & dropped[1, :, 0]).mean()
    assert both == pytest.approx(0.04, abs=0.02)  # epochs are independent
    # and timesteps: an example without prompt is noised like any other
    items = [likelihood.at(e, 0).items[0] for e in examples]
    t_N = likelihood.plan(items).t_N.double().numpy()
    assert t_N[dropped[0, :, 0]].mean() == pytest.approx(500, abs=80)
    store.asked.clear()
    likelihood.plan([item for e in examples for item in likelihood.at(e, -1).items])
    assert set(store.asked) == {"a cat"}


def test_a_dropped_prompt_is_scored_as_the_empty_one(worlds):
    """By the pipeline's own rule: the empty text for SD and SD3, zeros for SDXL."""
    for name in ("epsilon", "flow"):
        world = worlds(name)
        likelihood = world.likelihood(prompt_dropout=0.999)
        items = world.items(likelihood, 0)
        plan = likelihood.plan(items)
        item, parts = items[0], (plan.x0_NCHW[0], plan.noise_NCHW[0], int(plan.t_N[0]))
        found = float(world.scores(likelihood, items)[0])
        assert found == pytest.approx(error_by_hand(world, item, *parts, prompt=""), abs=1e-5)
        assert abs(found - error_by_hand(world, item, *parts)) > 1e-5
    world = worlds("sdxl")
    likelihood = world.likelihood(prompt_dropout=0.999)
    assert not likelihood.plan(world.items(likelihood, 0)).conditions["prompt_embeds"].any()


def test_posterior_sample_is_new_each_epoch_without_the_vae(sd, monkeypatch):
    monkeypatch.setattr(image_store, "encode_images", None)
    monkeypatch.setattr(sd.loaded.pipe, "vae", None)
    likelihood = sd.likelihood()
    keys = [item.latent for item in sd.items(likelihood, 0)]
    mean, std = sd.store.latents(keys)
    z = {
        epoch: (likelihood.plan(sd.items(likelihood, epoch)).x0_NCHW - mean) / std for epoch in (-1, 0, 0, 1)
    }
    every = torch.cat([*z.values()])  # 3 epochs of 4 images of 256 numbers
    assert_close(every.std(), torch.tensor(1.0), rtol=0, atol=0.05)
    likeness = torch.corrcoef(every.flatten(1)) - torch.eye(12)
    assert float(likeness.abs().max()) < 0.35  # no two images, epochs or noises share their sample
    noise = likelihood.plan(sd.items(likelihood, 0)).noise_NCHW
    assert abs(float(torch.corrcoef(torch.stack([noise[0].flatten(), z[0][0].flatten()]))[0, 1])) < 0.35


# ---- what a score is known by


def test_key_changes_with_everything_of_an_item():
    likelihood, _ = on_paper()
    item = EncodedLatent("a" * 32, "a cat", (8, 8, 0, 0, 8, 8), "row-1", 0, 2)
    changed = [
        replace(item, latent="b" * 32),
        replace(item, prompt="a dog"),
        *(replace(item, sizes=(*item.sizes[:k], 9, *item.sizes[k + 1 :])) for k in range(6)),
        replace(item, example="row-2"),
        replace(item, slot=1),
        replace(item, epoch=3),
        replace(item, epoch=-1),
        # the same once written one after the other
        replace(item, example="row-1|0", slot=2, epoch=3, prompt="x"),
        replace(item, example="row-1", slot=0, epoch=2, prompt="3|x"),
    ]
    keys = {likelihood.key(x) for x in (item, *changed)}
    assert len(keys) == 1 + len(changed)
    assert all(len(bytes.fromhex(key)) == 16 for key in keys)
    assert likelihood.key(replace(item)) == likelihood.key(item)


def test_settings_change_with_everything_else():
    def settings(**options: Any) -> str:
        return json.dumps(on_paper(**options)[0].settings(), sort_keys=True)

    variants = [
        settings(),
        settings(seed=1),
        settings(density="logit_normal"),
        settings(weight="min_snr"),
        settings(prompt_dropout=0.1),
        settings(store=Paper(identity={"resolution": 64})),
        json.dumps(DenoisingLikelihood(
            process=Process.from_scheduler(diffusers.DDPMScheduler(prediction_type="sample")), network=denoise,
            store=Paper(),
        ).settings(), sort_keys=True),
    ]  # fmt: skip
    assert len(set(variants)) == len(variants)
    assert settings(noise_epochs=1) == variants[0]  # epochs are part of each item's key


def test_the_store_is_known_by_all_that_made_it(sd, worlds, tmp_path):
    """Or a run at another resolution, or with another VAE, would find the scores of this one."""
    other_vae = tiny_pipelines.tiny_sd(tmp_path / "other")
    seed_1 = tiny_pipelines.tiny_sd(tmp_path / "seed-1", seed=1)
    for part in ("unet", "text_encoder", "tokenizer", "scheduler"):
        for file in (sd.folder / part).iterdir():
            (other_vae / part / file.name).write_bytes(file.read_bytes())
    for file in (seed_1 / "vae").iterdir():
        (other_vae / "vae" / file.name).write_bytes(file.read_bytes())
    other_text = tiny_pipelines.tiny_sd(tmp_path / "text")
    for file in (seed_1 / "text_encoder").iterdir():
        (other_text / "text_encoder" / file.name).write_bytes(file.read_bytes())
    stores = [
        sd.store,
        CachedImages(sd.loaded, 16, "center"),
        CachedImages(sd.loaded, 32, "none"),
        CachedImages(load_pipeline(str(other_vae)), 32, "center"),
        CachedImages(load_pipeline(str(other_text)), 32, "center"),
    ]
    assert len({json.dumps(store.identity, sort_keys=True) for store in stores}) == len(stores)
    again = CachedImages(load_pipeline(str(sd.folder)), 32, "center")
    assert again.identity == sd.store.identity
