"""Motions: pairs of a data set scored by their denoising error, or winners of a data set against losers sampled now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prefopt import methods
from prefopt.comparisons import Encoded, Example
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import Process
from prefopt.machine import memory
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.models import check_denoiser_settings, lora_settings, model_folder, weight_dtype
from prefopt.modalities.motion.likelihood import EncodedMotion, MotionLikelihood, length_of, shown_part
from prefopt.modalities.motion.models import (
    denoise_motion,
    facts_of,
    load_motion_model,
    write_trained,
)
from prefopt.modalities.motion.refs import MotionRef
from prefopt.modalities.motion.rows import load_motion_comparisons
from prefopt.modalities.motion.samples import MotionSamples, rounded
from prefopt.modalities.motion.scorers import MotionScorer, get_scorer, of_function
from prefopt.modalities.motion.store import MotionStore
from prefopt.modalities.probes import SampleProbe
from prefopt.modalities.semi_online import check_course, semi_online_feed
from prefopt.modalities.splits import (
    PreparedData,
    Split,
    condition_key,
    digest,
    has_ties,
    merge_dropped,
    read,
)
from prefopt.sources.hints import recount
from prefopt.worlds import world_of


def set_up(context: Context) -> Setup:
    """Data first, then the pipeline; texts are embedded once.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    config, accelerator = context.config, context.accelerator
    check_denoiser_settings(config)
    method = methods.find(config.method)
    drawn = method is not None and method.draws_losers
    if drawn:
        check_course(config, context.objective)
        judge_spec(config)
    source = model_folder(config.model, accelerator)
    facts = facts_of(source)
    load = partial(
        load_motion_comparisons,
        codec=facts["codec"],
        max_frames=facts["max_frames"],
        shortest=facts["unit_length"],
    )
    split = read(config, context.objective, load)
    dropped = merge_dropped(split.train.dropped, split.held_out.dropped)
    report = recount(split.train.report, split.train.examples, dropped).to_dict()
    report |= {"hints": [*(hint._asdict() for hint in split.hints), *report["hints"]]}
    train, held_out = (encoded(part.examples) for part in (split.train, split.held_out))
    context.objective.check_data(has_ties(train))
    data = PreparedData(
        train, held_out, split.prompts, report, dropped, fingerprint(train, held_out), split.not_held_out
    )
    seen = split.train.examples[0]
    context.announce(data, partial(first_pair, context, seen, facts["codec"]))

    if context.precision != "no":
        told = (
            "errors are computed under bf16, and log-ratios are small differences of them: bf16=false costs little on models of "
            "this size"
        )
        context.record.check("precision", "warn", told)
        context.console.say(f"precision: {told}")
    loaded = load_motion_model(source, dtype=weight_dtype(config), lora=lora_settings(config))
    loaded.pipe.to(accelerator.device)
    if config.gradient_checkpointing:
        loaded.pipe.denoiser.enable_gradient_checkpointing()
    store = MotionStore(
        loaded,
        share=(accelerator.process_index, accelerator.num_processes),
        wait=accelerator.wait_for_everyone,
        progress=context.console.track if accelerator.is_main_process else None,
    )
    examples = [*split.train.examples, *split.held_out.examples]
    store.add_motions(item.sample for e in examples for item in e.items)
    conditions = sampled_conditions(config, split, facts)
    texts = [
        text for e in (*train, *held_out) for item in e.items for text in (item.captions or (item.prompt,))
    ]
    store.add_prompts(list(dict.fromkeys([*texts, *(c["prompt"] for c in conditions)])))
    likelihood = MotionLikelihood(
        process=Process.from_scheduler(loaded.pipe.scheduler),
        network=denoise_motion,
        store=store,
        seed=config.seed,
        density=config.timestep_density,
        weight=config.error_weight,
        scale=config.error_scale,
        prompt_dropout=config.prompt_dropout,
        noise_epochs=config.noise_epochs,
        unit=facts["unit_length"],
        masked=facts["mask_padding"],
    )
    feed = None
    if drawn:
        judge = MotionJudge(get_judge(context), store)
        feed = partial(
            semi_online_feed, context, loaded.model, likelihood, loaded.pipe.scheduler, judge, data
        )
    scorer = find_scorer(context)
    source_of_reference = config.model if config.reference_model is None else config.reference_model

    def load_reference() -> nn.Module:
        folder = model_folder(source_of_reference, accelerator)
        return load_motion_model(folder, dtype=weight_dtype(config), trainable=False).model

    samples = MotionSamples(
        config, loaded, store, conditions, None if scorer is None else scorer.score, context.record
    )
    return Setup(
        policy=loaded,
        likelihood=likelihood,
        data=data,
        load_reference=load_reference,
        reference_kind="live" if loaded.adapter is None else "adapter_off",
        forecast=lambda resident: memory.forecast_without_activations(
            loaded.model, optim=config.optim, reference_resident=resident
        ),
        probe=lambda reference: SampleProbe(samples, loaded.model, accelerator, context.record),
        save=lambda folder, state: write_trained(folder, loaded, state),
        feed=feed,
    )


def encoded(examples: Sequence[Example]) -> list[Encoded[Any]]:
    """Examples by what the store knows them as, not yet cut to a stretch."""
    found = []
    for example in examples:
        items = []
        for item in example.items:
            ref: MotionRef = item.sample
            captions = tuple(item.condition.get("captions", ()))
            items.append(
                EncodedMotion(
                    ref.digest,
                    str(item.condition["prompt"]),
                    captions=captions,
                    frames=ref.frames,
                    length=ref.frames,
                )
            )
        found.append(Encoded(example.id, tuple(items), example.comparisons))
    return found


def fingerprint(train: Sequence[Encoded[Any]], held_out: Sequence[Encoded[Any]]) -> str:
    """Digest of the data."""
    return digest([*train, *held_out], lambda item: repr((item.latent, item.prompt, item.captions)))


def sampled_conditions(config: TrainConfig, split: Split, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Texts and lengths of samples: those of held-out rows where there are any, each text once."""
    frames: dict[str, int] = {}
    for example in split.held_out.examples or split.train.examples:
        frames.setdefault(condition_key(example.items[0].condition), example.items[0].sample.frames)
    found = []
    for condition in split.prompts[: config.sample_prompts]:
        known = frames.get(condition_key(condition), facts["max_frames"])
        length = shown_part(known, facts["max_frames"], facts["unit_length"])
        found.append({"prompt": str(condition["prompt"]), "length": length})
    return found


def first_pair(context: Context, example: Example, codec: str) -> dict[str, Any]:
    """The first example as a reader sees it: caption and moving figures."""
    from prefopt.motion.codec import find_codec

    known = find_codec(codec)
    edge = example.comparisons[0]
    ends = [("chosen", edge.first)] + ([] if edge.second is None else [("rejected", edge.second)])
    sides = []
    for name, index in ends:
        item = example.items[index]
        motion = known.positions(item.sample.read())
        sides.append(
            {
                "name": name,
                "prompt": item.condition["prompt"],
                "text": f"{len(motion)} frames, {len(motion) / known.fps:.1f} s",
                "motion": rounded(motion),
            }
        )
    shape = {"fps": known.fps, "parents": list(known.skeleton.parents), "codec": known.name}
    return {"id": example.id, "outcome": list(edge.outcome), "sides": sides, **shape}


# -- judges and scorers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MotionJudge:
    """A scorer of motions, on z-scores of the policy's.

    Attributes:
        scorer: of features in physical units.
        store: knows the policy's statistics.
    """

    scorer: MotionScorer
    store: MotionStore

    @property
    def reads_conditions(self) -> bool:
        """Whether scores depend on texts."""
        return self.scorer.reads_texts

    def score(self, items: Sequence[EncodedLatent], x_N: Tensor) -> Tensor:
        """(N,) scores of (N, F, D) z-scores."""
        return self.scorer.score([item.prompt for item in items], *self._physical(items, x_N))

    def embed(self, items: Sequence[EncodedLatent], x_N: Tensor) -> Tensor | None:
        """(N, E) embeddings."""
        return self.scorer.embed(*self._physical(items, x_N))

    def _physical(self, items: Sequence[EncodedLatent], x_N: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F, D) features, zeros behind the ends, and (N,) lengths."""
        length_N = torch.tensor([length_of(item) for item in items])
        features_NFD = self.store.denormalize(x_N[:, : int(length_N.max())])
        inside_NF = torch.arange(features_NFD.shape[1]) < length_N[:, None]
        return torch.where(inside_NF[:, :, None], features_NFD, 0.0), length_N


def judge_spec(config: TrainConfig) -> str:
    """The configured judge; a world's trained encoders where the data come from one.

    Raises:
        ConfigError: none is named.
    """
    spec = config.judge or (f"{config.data}:retrieval" if world_of(config.data) is not None else None)
    if spec is None:
        raise ConfigError(
            f"{config.method} needs a judge of motions: judge=retrieval:DIR (encoders of texts and motions, as `prefopt build "
            "motion-retrieval` trains them), judge=t2m:DIR (a converted T2M evaluator), or data from a world"
        )
    return spec


def get_judge(context: Context) -> MotionScorer:
    """What `judge_spec` names, loaded."""
    return get_scorer(judge_spec(context.config), str(context.accelerator.device))


def find_scorer(context: Context) -> MotionScorer | None:
    """What samples are scored by: the user's function, the configured scorer, or the world's exact verdict."""
    config = context.config
    if context.reward is not None:
        return of_function(context.reward)
    spec = config.reward or (config.data if world_of(config.data) is not None else config.judge)
    return None if spec is None else get_scorer(spec, str(context.accelerator.device))
