"""Images from a data set, scored by their denoising error; and what online methods and judges share with that.

Where the method draws losers (sopo), the images of the data set are winners, and the policy's own samples are scored beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prefopt import methods
from prefopt.comparisons import Encoded, Example, Item, UnusableItem
from prefopt.likelihoods.base import Likelihood
from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.transition import stochastic
from prefopt.machine import memory
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.image.filtering import ASPECTS, Strategy, keep_consistent
from prefopt.modalities.image.judges import find_judge, judge_spec
from prefopt.modalities.image.models.denoiser import denoise
from prefopt.modalities.image.models.pipelines import (
    LoadedPipeline,
    check_pipeline_source,
    free,
    load_pipeline,
)
from prefopt.modalities.image.models.saving import write_trained
from prefopt.modalities.image.probe import with_probe
from prefopt.modalities.image.rows import load_image_comparisons
from prefopt.modalities.image.samples import ImageSamples, Scorer
from prefopt.modalities.image.store import CachedImages
from prefopt.modalities.models import lora_settings, model_folder, weight_dtype
from prefopt.modalities.probes import SampleProbe, Samples
from prefopt.modalities.semi_online import check_course, semi_online_feed
from prefopt.modalities.splits import PreparedData, Split, digest, has_ties, merge_dropped, read
from prefopt.sources.collecting import Comparisons
from prefopt.sources.hints import recount
from prefopt.sources.online import Judge
from prefopt.sources.pictures import ImageRef, decode, geometry, to_pixels
from prefopt.sources.report import Dropped, count_reasons
from prefopt.worlds import world_of

Loaded = TypeVar("Loaded", bound=LoadedPipeline)


def set_up(context: Context) -> Setup:
    """Images from a data set, scored by their denoising error."""
    config = context.config
    method = methods.find(config.method)
    drawn = method is not None and method.draws_losers
    if drawn:
        check_course(config, context.objective)
        judge_spec(config)
    source = model_folder(config.model, context.accelerator)
    check_pipeline_source(source)
    split, report, dropped = read_data(context)
    loaded = load_policy(context, source)
    store = make_store(context, loaded)
    likelihood = DenoisingLikelihood(
        process=Process.from_scheduler(loaded.scheduler),
        network=partial(denoise, loaded.family),
        store=store,
        seed=config.seed,
        density=config.timestep_density,
        weight=config.error_weight,
        scale=config.error_scale,
        prompt_dropout=config.prompt_dropout,
        noise_epochs=config.noise_epochs,
    )
    data = encode_data(context, split, report, dropped, store, likelihood)
    prompts = [str(condition["prompt"]) for condition in split.prompts]
    more: dict[str, Any] = {}
    if drawn:
        judge = CandidateImages(find_judge(context, loaded))
        more["feed"] = partial(
            semi_online_feed, context, loaded.model, likelihood, stochastic(loaded.scheduler), judge, data
        )
        more["keep"] = ("vae",)  # candidates are decoded for the judge
    setup = finish(context, loaded, store, likelihood, data, prompts, **more)
    return with_probe(context, setup, likelihood)


@dataclass(frozen=True)
class CandidateImages:
    """A judge of finished images, or of clean latents, for candidates that come from latents.

    Attributes:
        judge: of latents under prompts.
    """

    judge: Judge
    reads_conditions = False
    """Judges of looks alone are as welcome as those that read prompts."""

    def score(self, items: Sequence[EncodedLatent], x_N: Tensor) -> Tensor:
        """(N,) scores."""
        t_N = torch.zeros(len(items), dtype=torch.int64)
        return self.judge(x_N, t_N, [item.prompt for item in items])

    def embed(self, items: Sequence[EncodedLatent], x_N: Tensor) -> None:
        """None: judges of images give scores alone, so that no winner weighs more than others."""


def read_data(context: Context) -> tuple[Split, dict[str, Any], list[Dropped]]:
    """See `read_rows`; without pairs that other scores disagree with, where so configured."""
    return read_rows(context, partial(load_consistent, context.config.consistency))


def read_rows(
    context: Context, load: Callable[..., Comparisons]
) -> tuple[Split, dict[str, Any], list[Dropped]]:
    """Comparisons with their images still in files, announced; report and dropped rows so far."""
    split = read(context.config, context.objective, load)
    dropped = merge_dropped(split.train.dropped, split.held_out.dropped)
    report = account(split, split.train.examples, dropped)
    pending = PreparedData([], [], split.prompts, report, dropped, not_held_out=split.not_held_out)
    context.announce(pending, None, n=(len(split.train), len(split.held_out)))
    return split, report, dropped


def account(split: Split, examples: Sequence[Any], dropped: Sequence[Dropped]) -> dict[str, Any]:
    """The data report, of the examples that are trained on."""
    report = recount(split.train.report, examples, dropped).to_dict()
    return report | {"hints": [*(hint._asdict() for hint in split.hints), *report["hints"]]}


def load_consistent(strategy: Strategy | None, source: Any, **options: Any) -> Comparisons:
    """Rows of images; without pairs that other scores disagree with, where a strategy is given."""
    if strategy is None:
        return load_image_comparisons(source, **options)
    gaps = [f"gap_{aspect}" for aspect in ASPECTS]
    columns = [*options.pop("columns", ()), *gaps]
    return keep_consistent(load_image_comparisons(source, columns=columns, **options), strategy=strategy)


def encode_data(
    context: Context,
    split: Split,
    report: dict[str, Any],
    dropped: list[Dropped],
    store: CachedImages,
    likelihood: Likelihood,
    prompts: bool = True,
) -> PreparedData:
    """Fill the caches, and give examples by what the caches know them as.

    Args:
        context: of the run.
        split, report, dropped: from `read_data`.
        store: of latents and embeddings.
        likelihood: for the data's fingerprint.
        prompts: whether prompts are embedded once (not where text encoders are trained).

    Raises:
        ValueError: no image can be decoded, or there are ties and nobody said what they mean.
    """
    parts = (split.train, split.held_out)
    refs = {item.sample.digest: item.sample for part in parts for e in part.examples for item in e.items}
    n_images, broken = store.add_images(refs)
    texts = dict.fromkeys(e.items[0].condition["prompt"] for part in parts for e in part.examples)
    n_texts = store.add_prompts(list(texts)) if prompts else 0
    note = f"{n_images} images and {n_texts} prompts encoded now, the rest came from the cache"
    context.record.check("latent cache", "note", note)
    return settle(
        context,
        split,
        report,
        dropped,
        likelihood,
        broken,
        pictures=lambda item: (item.sample,),
        encoded=lambda item: EncodedLatent(
            item.sample.digest, item.condition["prompt"], sizes_of(item.sample, store)
        ),
        first=lambda example: first_pair(context, example, partial(as_seen, store)),
    )


def settle(
    context: Context,
    split: Split,
    report: dict[str, Any],
    dropped: list[Dropped],
    likelihood: Likelihood,
    broken: Mapping[str, UnusableItem],
    *,
    pictures: Callable[[Item], Sequence[ImageRef]],
    encoded: Callable[[Item], EncodedLatent],
    first: Callable[[Example], Mapping[str, Any]],
) -> PreparedData:
    """Examples by the keys of what the caches hold, recorded; rows with a picture that cannot be decoded are dropped.

    Args:
        context: of the run.
        split, report, dropped: from `read_rows`.
        likelihood: for the data's fingerprint.
        broken: what is wrong with pictures, by digest.
        pictures: that an item consists of.
        encoded: an item by its keys.
        first: writes the pictures of the first example; what the report shows of it.

    Raises:
        ValueError: no row is left, or there are ties and nobody said what they mean.
    """

    def encode(part: Comparisons) -> tuple[list[Encoded[EncodedLatent]], list[Dropped]]:
        kept: list[Encoded[EncodedLatent]] = []
        lost: list[Dropped] = []
        for example in part.examples:
            digests = [ref.digest for item in example.items for ref in pictures(item)]
            bad = next((broken[key] for key in digests if key in broken), None)
            if bad is not None:
                lost.append(Dropped(part.origins[example.id].row, example.id, bad.reason, str(bad)))
                continue
            items = tuple(encoded(item) for item in example.items)
            kept.append(Encoded(example.id, items, example.comparisons))
        return kept, lost

    (train, lost), (held_out, also_lost) = encode(split.train), encode(split.held_out)
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
    seen = next(e for e in split.train.examples if e.id in usable)
    context.record.json("first_pair", dict(first(seen)))
    fingerprint = digest([*train, *held_out], likelihood.key)
    why = split.not_held_out or (None if held_out else "no held-out image could be decoded")
    return PreparedData(train, held_out, split.prompts, report, dropped, fingerprint, why)


def finish(
    context: Context,
    loaded: LoadedPipeline,
    store: CachedImages,
    likelihood: Any,
    data: PreparedData,
    prompts: Sequence[str],
    **more: Any,
) -> Setup:
    """What offline and online methods share, once their data and likelihood are known."""
    prompts = prompts[: context.config.sample_prompts]
    store.add_prompts(prompts)
    return conclude(
        context,
        loaded,
        likelihood,
        data,
        samples=lambda scorer: ImageSamples(context.config, loaded, store, prompts, scorer, context.record),
        load=load_pipeline,
        write=write_trained,
        **more,
    )


def conclude(
    context: Context,
    loaded: Loaded,
    likelihood: Any,
    data: PreparedData,
    *,
    samples: Callable[[Scorer | None], Samples],
    load: Callable[..., LoadedPipeline],
    write: Callable[[Path, Loaded, Any], None],
    keep: Sequence[str] = (),
    **more: Any,
) -> Setup:
    """The set-up of a pipeline whose caches are filled; its encoders leave memory here.

    Args:
        context: of the run.
        loaded: the policy's pipeline.
        likelihood, data, more: see `Setup`.
        samples: through the run, by what they are scored with.
        load: a frozen pipeline to be the reference.
        write: what was trained, into a folder.
        keep: parts that stay in memory ("vae").
    """
    config = context.config
    free(loaded, *(part for part in ("vae", "text_encoders") if part not in keep))
    if config.gradient_checkpointing:
        network: Any = loaded.model
        network.enable_gradient_checkpointing()
    scorer = find_scorer(context)
    source = config.model if config.reference_model is None else config.reference_model

    def load_reference() -> nn.Module:
        folder = model_folder(source, context.accelerator)
        return load(folder, dtype=weight_dtype(config), trainable=False).model

    return Setup(
        policy=loaded,
        likelihood=likelihood,
        data=data,
        load_reference=load_reference,
        reference_kind="live" if loaded.adapter is None else "adapter_off",
        forecast=lambda resident: memory.forecast_without_activations(
            loaded.model, optim=config.optim, reference_resident=resident
        ),
        probe=lambda reference: SampleProbe(
            samples(scorer), loaded.model, context.accelerator, context.record
        ),
        save=lambda folder, state: write(folder, loaded, state),
        **more,
    )


def load_policy(context: Context, source: str) -> LoadedPipeline:
    """The pipeline on its device, its network (or adapters on it) ready to train."""
    config = context.config
    loaded = load_pipeline(source, dtype=weight_dtype(config), lora=lora_settings(config))
    return loaded.to(context.accelerator.device)


def make_store(context: Context, loaded: LoadedPipeline) -> CachedImages:
    """Caches of latents and prompts, shared out over processes."""
    config = context.config
    return CachedImages(loaded, config.resolution or loaded.image_size, config.crop, **store_options(context))


def store_options(context: Context) -> dict[str, Any]:
    """How the processes of a run fill a cache together."""
    accelerator = context.accelerator
    return {
        "share": (accelerator.process_index, accelerator.num_processes),
        "wait": accelerator.wait_for_everyone,
        "progress": context.console.track if accelerator.is_main_process else None,
    }


def find_scorer(context: Context) -> Scorer | None:
    """What samples are scored by: the user's function, the configured scorer, or the world's exact reward."""
    config, reward = context.config, context.reward
    if reward is not None:
        import torch

        def score(prompts: Sequence[str], images: Any) -> Any:
            return torch.tensor([reward(p, image) for p, image in zip(prompts, images, strict=True)])

        return score
    spec = config.reward
    if spec is None and config.judge is not None and not config.judge.startswith("lrm:"):
        spec = config.judge
    if spec is None and world_of(config.data) is not None:
        spec = config.data
    if spec is None:
        return None
    from prefopt.modalities.image.scorers import get_scorer

    found: Any = get_scorer(spec, device=str(context.accelerator.device))
    method: Scorer = found.score
    return method


def sizes_of(ref: ImageRef, store: CachedImages) -> tuple[int, int, int, int, int, int]:
    """Original height and width, crop top and left, target height and width."""
    _, (left, top) = geometry(ref.size, store.resolution, store.crop)
    width, height = ref.size
    return height, width, top, left, store.resolution, store.resolution


def as_seen(store: CachedImages, item: Item) -> Tensor:
    """(3, H, W) in [0, 1]: an item's image, cropped to the run's resolution."""
    return to_pixels(decode(item.sample), store.resolution, store.crop).pixels_3HW / 2 + 0.5


def first_pair(context: Context, example: Example, shown: Callable[[Item], Tensor]) -> dict[str, Any]:
    """The first example as the model sees it: prompt, and pictures cropped to the run's resolution."""
    edge = example.comparisons[0]
    ends = [("chosen", edge.first)] + ([] if edge.second is None else [("rejected", edge.second)])
    sides = []
    for name, index in ends:
        item = example.items[index]
        path = context.record.picture(f"first-{name}", shown(item))
        sides.append({"name": name, "prompt": item.condition["prompt"], "image": path})
    return {"id": example.id, "outcome": list(edge.outcome), "sides": sides}
