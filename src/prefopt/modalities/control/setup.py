"""Control images: comparisons of conditions, or of images under one condition, scored by their denoising error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from prefopt.comparisons import Encoded, Example
from prefopt.config import ConfigError
from prefopt.likelihoods.process import Process
from prefopt.machine import memory
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.control.likelihood import ControlLikelihood, EncodedControl
from prefopt.modalities.control.models import (
    FAMILIES,
    ControlledNetwork,
    denoise_controlled,
    load_control,
    write_control,
)
from prefopt.modalities.control.rows import load_control_comparisons
from prefopt.modalities.control.samples import ControlSamples
from prefopt.modalities.control.store import CachedControls, as_control
from prefopt.modalities.image.models.pipelines import check_pipeline_source, free
from prefopt.modalities.image.offline import (
    account,
    find_scorer,
    read_rows,
    sizes_of,
    store_options,
    weight_dtype,
)
from prefopt.modalities.image.probe import with_probe
from prefopt.modalities.image.setup import check_precision
from prefopt.modalities.models import lora_settings, model_folder
from prefopt.modalities.probes import SampleProbe
from prefopt.modalities.splits import PreparedData, Split, digest, has_ties, merge_dropped
from prefopt.sources.collecting import Comparisons
from prefopt.sources.report import Dropped, count_reasons


def set_up(context: Context) -> Setup:
    """Data first, then the pipeline; latents, prompts and control images once, then the encoders leave memory.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    config, accelerator = context.config, context.accelerator
    check_precision(config)
    if config.gradient_checkpointing == "auto":
        raise ConfigError("gradient_checkpointing=auto is for text models: set true or false")
    source = model_folder(config.model, accelerator)
    check_pipeline_source(source, FAMILIES)
    split, report, dropped = read_rows(context, load_control_comparisons)
    loaded = load_control(source, dtype=weight_dtype(config), lora=lora_settings(config))
    loaded.to(accelerator.device)
    loaded.denoiser.to(accelerator.device)
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
    asked = split.prompts[: config.sample_prompts]
    store.add_prompts([condition["prompt"] for condition in asked])
    store.add_controls({c["control"].digest: c["control"] for c in asked})
    free(loaded, "vae", "text_encoders")
    if config.gradient_checkpointing:
        for network in (loaded.pipe.controlnet, loaded.pipe.unet):
            network.enable_gradient_checkpointing()
    other_source = config.model if config.reference_model is None else config.reference_model

    def load_reference() -> nn.Module:
        other = load_control(
            model_folder(other_source, accelerator), dtype=weight_dtype(config), trainable=False
        )
        if config.reference_model is None and accelerator.num_processes == 1:
            # the base is frozen in both: one copy does
            return ControlledNetwork(loaded.pipe.unet, other.pipe.controlnet)
        return other.model

    scorer = find_scorer(context)
    setup = Setup(
        policy=loaded,
        likelihood=likelihood,
        data=data,
        load_reference=load_reference,
        reference_kind="live" if loaded.adapter is None else "adapter_off",
        forecast=lambda resident: memory.forecast_without_activations(
            loaded.model, optim=config.optim, reference_resident=resident
        ),
        probe=lambda reference: SampleProbe(
            ControlSamples(config, loaded, store, asked, scorer, context.record),
            loaded.model,
            accelerator,
            context.record,
        ),
        save=lambda folder, state: write_control(folder, loaded, state),
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
    (train, lost), (held_out, also_lost) = (encode(part, store, broken | also_broken) for part in parts)
    if lost or also_lost:
        dropped = merge_dropped(dropped, lost, also_lost)
        report = account(split, train, dropped)
        reasons = ", ".join(f"{n} {reason}" for reason, n in count_reasons([*lost, *also_lost]).items())
        context.console.say(f"  dropped when decoded (listed in dropped.jsonl): {reasons}")
    context.record.data(report, dropped)
    if not train:
        raise ValueError(f"none of the images of {context.config.data} could be decoded; see dropped.jsonl")
    context.objective.check_data(has_ties(train))
    usable = {e.id for e in train}
    first = next(e for e in split.train.examples if e.id in usable)
    context.record.json("first_pair", first_pair(context, first, store))
    fingerprint = digest([*train, *held_out], likelihood.key)
    why = split.not_held_out or (None if held_out else "no held-out image could be decoded")
    return PreparedData(train, held_out, split.prompts, report, dropped, fingerprint, why)


def encode(
    part: Comparisons, store: CachedControls, broken: Mapping[str, Any]
) -> tuple[list[Encoded[EncodedControl]], list[Dropped]]:
    """Examples by the keys of what the store holds; rows with a picture that cannot be decoded are dropped."""
    found: list[Encoded[EncodedControl]] = []
    dropped: list[Dropped] = []
    for example in part.examples:
        keys = [k for i in example.items for k in (i.sample.digest, i.condition["control"].digest)]
        bad = next((broken[key] for key in keys if key in broken), None)
        if bad is not None:
            dropped.append(Dropped(part.origins[example.id].row, example.id, bad.reason, str(bad)))
            continue
        items = tuple(
            EncodedControl(
                i.sample.digest,
                i.condition["prompt"],
                sizes_of(i.sample, store),
                control=i.condition["control"].digest,
            )
            for i in example.items
        )
        found.append(Encoded(example.id, items, example.comparisons))
    return found, dropped


def first_pair(context: Context, example: Example, store: CachedControls) -> dict[str, Any]:
    """The first example as the model sees it: prompt, and both sides' control image."""
    import torch

    edge = example.comparisons[0]
    ends: Sequence[tuple[str, int]] = [("chosen", edge.first)]
    if edge.second is not None:
        ends = [*ends, ("rejected", edge.second)]
    sides = []
    for name, index in ends:
        item = example.items[index]
        levels = torch.from_numpy(as_control(item.condition["control"], store.resolution, store.crop).copy())
        path = context.record.picture(f"first-{name}", levels / 255)
        sides.append({"name": name, "prompt": item.condition["prompt"], "image": path})
    return {"id": example.id, "outcome": list(edge.outcome), "sides": sides}
