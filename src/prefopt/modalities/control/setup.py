"""Control images: comparisons of conditions, or of images under one condition, scored by their denoising error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from prefopt.comparisons import Item
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.process import Process
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.control.consistency import Consistency
from prefopt.modalities.control.detectors import Detector, find, read, require_loss
from prefopt.modalities.control.first import first_comparison
from prefopt.modalities.control.likelihood import ControlLikelihood, EncodedControl
from prefopt.modalities.control.models import (
    LoadedControl,
    denoise_controlled,
    families,
    load_control,
    write_control,
)
from prefopt.modalities.control.online import Author, OnlineConditions
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
from prefopt.modalities.models import check_denoiser_settings, lora_settings, model_folder, weight_dtype
from prefopt.modalities.splits import PreparedData, Split
from prefopt.objectives.base import Objective
from prefopt.references import Reference
from prefopt.sources.feeds import Feed
from prefopt.sources.report import Dropped
from prefopt.sources.schedule import Schedule
from prefopt.worlds import world_of

READ_AT_ONCE = 64


def set_up(context: Context) -> Setup:
    """Data first, then the pipeline; latents, prompts and control images once, then the encoders leave memory.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    config, accelerator = context.config, context.accelerator
    check_denoiser_settings(config)
    check_terms(config, context.objective)
    needs = context.objective.needs
    detector = find_detector(context)
    source = model_folder(config.model, accelerator)
    check_pipeline_source(source, families(config.controlnet))
    split, report, dropped = read_rows(
        context, partial(load_control_comparisons, without_losers=config.losing_condition == "online")
    )
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
        scale=config.error_scale,
        prompt_dropout=config.prompt_dropout,
        noise_epochs=config.noise_epochs,
        own_draws="logp_own" in needs,
        condition_dropout=config.condition_dropout,
        consistency=None
        if "consistency" not in needs or detector is None
        else Consistency.of(loaded, require_loss(detector), config.consistency_timestep),
    )
    data = encode_data(context, split, report, dropped, store, likelihood)
    # rows that objectives leave out may be sampled for, and their pictures were not looked at to the end
    _, broken = store.add_controls({c["control"].digest: c["control"] for c in split.prompts})
    usable = [c for c in split.prompts if c["control"].digest not in broken]
    asked = usable[: config.sample_prompts]
    if detector is not None:
        shown = {f"sample {n + 1}": condition["control"].digest for n, condition in enumerate(asked)}
        online = config.losing_condition == "online"
        trained = {e.id: e.items[0].control for e in data.train} if online or "consistency" in needs else {}
        check_readable(detector, store, trained | shown)
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

    feed = None
    if config.losing_condition == "online":
        assert detector is not None  # `find_detector` looked
        author = Author(
            loaded,
            store,
            detector,
            accelerator,
            seed=config.seed,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.per_device_eval_batch_size,
        )
        data.held_out = author.rewritten(data.held_out, epoch=-1, for_good=True)
        feed = online_feed(context, data, likelihood, author)
    # else it would be read again for every sample, beside the one that the reward decodes with
    keep = ("vae",) if feed is not None or likelihood.consistency is not None else ()
    setup = conclude(
        context,
        loaded,
        likelihood,
        data,
        samples=lambda scorer: ControlSamples(
            config, loaded, store, asked, scorer, context.record, detector=detector
        ),
        load=load_frozen,
        write=write_control,
        keep=keep,
        feed=feed,
    )
    return with_probe(context, setup, likelihood)


def check_terms(config: TrainConfig, objective: Objective) -> None:
    """Raise ConfigError for keys of conditions that this objective has no use for."""
    if config.losing_condition == "online" and config.reference == "cached":
        raise ConfigError(
            "reference=cached is of no use to losing_condition=online: its conditions are new in every step. Leave reference "
            "out"
        )
    if config.losing_condition == "online" and (objective.unpaired or objective.winner_alone):
        raise ConfigError(
            f"losing_condition=online makes losing conditions, and {config.method} compares none: leave losing_condition out, "
            "or take condition_po or another method of pairs"
        )
    if config.condition_dropout > 0 and "logp_own" not in objective.needs:
        raise ConfigError(
            f"condition_dropout={config.condition_dropout:g} drops conditions of the diffusion term's own draws, and this run "
            "has none: set diffusion_draw=own and diffusion_weight above 0, or leave condition_dropout out"
        )


def online_feed(
    context: Context, data: PreparedData, likelihood: ControlLikelihood, author: Author
) -> Callable[[Reference], Feed]:
    """The data's examples, their losing conditions made for every step."""
    schedule = Schedule.of(context.config, len(data.train), context.accelerator.num_processes)
    return lambda reference: OnlineConditions(data.train, schedule, likelihood, author)


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
        first=partial(first_comparison, context, store),
    )


def encoded(store: CachedControls, item: Item) -> EncodedControl:
    """An item by the keys of what the store holds."""
    control = item.condition["control"].digest
    sizes = sizes_of(item.sample, store)
    return EncodedControl(item.sample.digest, item.condition["prompt"], sizes, control=control)


def find_detector(context: Context) -> Detector | None:
    """What reads conditions from images: as configured, or the world's own.

    Raises:
        ConfigError: there is none, and the run needs one.
        ValueError, OSError: see `detectors.find`.
    """
    config = context.config
    spec = config.detector
    if spec is None and hasattr(world_of(config.data), "detector"):
        spec = config.data
    if spec is not None:
        found = find(spec, device=str(context.accelerator.device))
        return require_loss(found) if "consistency" in context.objective.needs else found
    why = (
        "losing_condition=online makes losing conditions by one"
        if config.losing_condition == "online"
        else None
    )
    if "consistency" in context.objective.needs:
        why = f"{config.method} rewards what one sees in the model's estimates"
    if why is not None:
        raise ConfigError(
            f"no detector is given, and {why}: set detector to canny_torch, segmentation:DIR, depth:DIR, ..."
        )
    return None


def check_readable(detector: Detector, store: CachedControls, keys: Mapping[str, str]) -> None:
    """Raise ValueError, naming the row, for a true condition that the detector cannot read: a mask with a class it lacks.

    Args:
        detector: that will be asked.
        store: of control images.
        keys: of true conditions, by what messages call them.
    """
    if detector.metric == "pose":  # poses are not read from control images
        return
    names = list(keys)
    for start in range(0, len(names), READ_AT_ONCE):
        some = names[start : start + READ_AT_ONCE]
        read(detector, some, store.controls([keys[name] for name in some]))
