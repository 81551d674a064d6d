"""Control images: comparisons of conditions, or of images under one condition, scored by their denoising error."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefopt.comparisons import Item
from prefopt.likelihoods.process import Process
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.control.likelihood import ControlLikelihood, EncodedControl
from prefopt.modalities.control.models import (
    LoadedControl,
    denoise_controlled,
    families,
    load_control,
    write_control,
)
from prefopt.modalities.control.rows import load_control_comparisons
from prefopt.modalities.control.samples import ControlSamples
from prefopt.modalities.control.store import CachedControls
from prefopt.modalities.image.models.pipelines import check_pipeline_source
from prefopt.modalities.image.offline import (
    conclude,
    read_rows,
    settle,
    sizes_of,
    store_options,
)
from prefopt.modalities.image.probe import with_probe
from prefopt.modalities.image.setup import check_settings
from prefopt.modalities.models import lora_settings, model_folder, weight_dtype
from prefopt.modalities.splits import PreparedData, Split
from prefopt.sources.report import Dropped


def set_up(context: Context) -> Setup:
    """Data first, then the pipeline; latents, prompts and control images once, then the encoders leave memory.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    config, accelerator = context.config, context.accelerator
    check_settings(config)
    source = model_folder(config.model, accelerator)
    check_pipeline_source(source, families(config.controlnet))
    split, report, dropped = read_rows(context, load_control_comparisons)
    loaded = load_control(
        source,
        controlnet=config.controlnet,
        seed=config.seed,
        dtype=weight_dtype(config),
        lora=lora_settings(config),
    )
    loaded.to(accelerator.device)
    with accelerator.autocast():
        why = loaded.denoiser.adapt()
    context.record.check("shared states", "note" if why else "pass", loaded.denoiser.account)
    store = CachedControls(
        loaded, config.resolution or loaded.image_size, config.crop, **store_options(context)
    )
    likelihood = ControlLikelihood(
        process=Process.from_scheduler(loaded.scheduler),
        network=partial(denoise_controlled, loaded.family),
        store=store,
        seed=config.seed,
        density=config.timestep_density,
        weight=config.error_weight,
        prompt_dropout=config.prompt_dropout,
        noise_epochs=config.noise_epochs,
    )
    data = encode_data(context, split, report, dropped, store, likelihood)
    # rows that objectives leave out may be sampled for, and their pictures were not looked at to the end
    _, broken = store.add_controls({c["control"].digest: c["control"] for c in split.prompts})
    usable = [c for c in split.prompts if c["control"].digest not in broken]
    asked = usable[: config.sample_prompts]
    store.add_prompts([condition["prompt"] for condition in asked])

    def load_frozen(source: str, **options: Any) -> LoadedControl:
        same = config.reference_model is None
        other = load_control(
            source, controlnet=config.controlnet if same else None, seed=config.seed, **options
        )
        if same and accelerator.num_processes == 1:
            other.share_base(loaded)
        else:
            with accelerator.autocast():
                other.denoiser.to(accelerator.device).adapt()
        return other

    setup = conclude(
        context,
        loaded,
        likelihood,
        data,
        samples=lambda scorer: ControlSamples(config, loaded, store, asked, scorer, context.record),
        load=load_frozen,
        write=write_control,
    )
    return with_probe(context, setup, likelihood)


def encode_data(
    context: Context,
    split: Split,
    report: dict[str, Any],
    dropped: list[Dropped],
    store: CachedControls,
    likelihood: ControlLikelihood,
) -> PreparedData:
    """Fill the caches, and give examples by what the caches know them as.

    Raises:
        ValueError: no row can be decoded, or there are ties and nobody said what they mean.
    """
    parts = (split.train, split.held_out)
    items = [item for part in parts for e in part.examples for item in e.items]
    n_images, broken = store.add_images({item.sample.digest: item.sample for item in items})
    controls = {item.condition["control"].digest: item.condition["control"] for item in items}
    n_controls, also_broken = store.add_controls(controls)
    n_texts = store.add_prompts(list(dict.fromkeys(item.condition["prompt"] for item in items)))
    context.record.check(
        "latent cache",
        "note",
        f"{n_images} images, {n_controls} control images and {n_texts} prompts encoded now, the rest came from the cache",
    )
    return settle(
        context,
        split,
        report,
        dropped,
        likelihood,
        broken | also_broken,
        pictures=lambda item: (item.sample, item.condition["control"]),
        encoded=partial(encoded, store),
        shown=lambda item: store.controls([item.condition["control"].digest])[0],
    )


def encoded(store: CachedControls, item: Item) -> EncodedControl:
    """An item by the keys of what the store holds."""
    control = item.condition["control"].digest
    sizes = sizes_of(item.sample, store)
    return EncodedControl(item.sample.digest, item.condition["prompt"], sizes, control=control)
