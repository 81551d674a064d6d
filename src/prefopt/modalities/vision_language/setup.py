"""Images and text: a run on language models (`text/setup.py`), which also read pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from prefopt.comparisons import Encoded
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.base import Context, Probe, Setup
from prefopt.modalities.models import lora_settings
from prefopt.modalities.splits import PreparedData
from prefopt.modalities.text.samples import TextSamples
from prefopt.modalities.text.setup import Language, first_pair, set_up_language
from prefopt.modalities.vision_language.expanding import AnyUnit
from prefopt.modalities.vision_language.feature_cache import FeatureCache, check_frozen
from prefopt.modalities.vision_language.images import Images
from prefopt.modalities.vision_language.kept import name_of
from prefopt.modalities.vision_language.likelihood import PicturedLikelihood
from prefopt.modalities.vision_language.media import Medium
from prefopt.modalities.vision_language.opening import (
    check_truncation,
    open_images,
    pictured_likelihood,
    token_of,
)
from prefopt.modalities.vision_language.parts import adapted_modules, freeze, part_of
from prefopt.modalities.vision_language.plan import EncodedPictured
from prefopt.modalities.vision_language.processor import save_processor
from prefopt.modalities.vision_language.rows import Wanted, load_pictured
from prefopt.modalities.vision_language.samples import Marker, PicturedSamples
from prefopt.modalities.vision_language.video.hints import sparser_hints
from prefopt.modalities.vision_language.video.positions import PositionProbe, around_anchors
from prefopt.modalities.vision_language.video.redrawing import Redraw, Redrawing
from prefopt.modalities.vision_language.video.rows import VideoColumns
from prefopt.modalities.vision_language.video.strips import strip_of
from prefopt.modalities.vision_language.video.videos import Sampling, Video, videos_of
from prefopt.models.loading import LoadedModel
from prefopt.models.peft_settings import LoraSettings, field_names
from prefopt.models.sources import PICTURED
from prefopt.objectives.base import Objective
from prefopt.sources.collecting import Comparisons
from prefopt.sources.report import Hint
from prefopt.sources.videos import ClipRef
from prefopt.worlds import world_of


def set_up(context: Context) -> Setup:
    """Data first, then the model.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    return set_up_language(context, VisionLanguage(context))


class VisionLanguage(Language):
    """What models bring that read pictures, too."""

    loader = PICTURED
    images: Images

    def __init__(self, context: Context) -> None:
        self.context = context

    def open(self, source: str) -> None:
        """Load the processor; what cannot be had is refused before anything else."""
        if self.context.config.cache_vision_features:
            check_frozen(self.context.config)
        self.images = open_images(source)
        self.tokens = {kind: token_of(source, kind) for kind in ("image", "video")}
        self.tokenizer = self.images.processor.tokenizer
        self.kind_of_tokens = int(self.images.suffixed) if self.images.typed else None

    def likelihood(self, source: str, config: TrainConfig, reference: str) -> PicturedLikelihood:
        """Rows that fit both models."""
        check_truncation(config.truncation_mode)
        return pictured_likelihood(self.images, config.max_length, source, reference)

    def rows(self, config: TrainConfig, objective: Objective) -> Callable[..., Comparisons]:
        """The reader of rows, told what the objective reads of them."""
        frames = config.video_frames if config.video_fps is None else None
        sampling = Sampling(frames, config.video_fps, config.video_max_frames)
        videos = VideoColumns(
            sampling=sampling, context=config.reference_context, redraw=config.redraw_videos
        )
        wanted = Wanted(objective.branches, objective.reads_loser, config.contrast_image, config.seed, videos)
        return partial(load_pictured, optional=objective.columns, wanted=wanted)

    def lora(self, config: TrainConfig) -> LoraSettings | None:
        """Adapters on the parts that were asked for."""
        settings = lora_settings(config)
        if settings is None:
            return None
        if not config.lora_parts:
            raise ConfigError(
                "lora_parts is empty: name language_model, projector or vision_tower, or leave it out"
            )
        for name in ("layers_to_transform", "exclude_modules"):
            if settings.fields.get(name):
                raise ConfigError(
                    f"peft: {name} is not possible for vision-language models, where layers are chosen by lora_parts: name them "
                    "in lora_target_modules by the ends of their paths, such as layers.0.self_attn.q_proj"
                )
        if "target_modules" not in field_names(settings.kind) or settings.kind in (
            "LN_TUNING",
            "TRAINABLE_TOKENS",
        ):
            raise ConfigError(
                f"peft_type={settings.kind} adapts no linear layers, which lora_parts chooses for vision-language models: take "
                "LORA"
            )
        asked: Any = settings.target_modules
        return replace(settings, target_modules=adapted_modules(config.lora_parts, asked))

    def loaded(self, context: Context, model: nn.Module) -> None:
        """Leave alone what is not to be trained."""
        if not context.config.use_peft:
            freeze(model, context.config.freeze)

    def ready(
        self, context: Context, model: nn.Module, likelihood: TokenLikelihood, data: PreparedData
    ) -> None:
        """Features of every picture on disk, where that is asked for."""
        if not context.config.cache_vision_features:
            return
        moving = [
            n for n, p in model.named_parameters() if p.requires_grad and part_of(n) != "language_model"
        ]
        if moving:  # whole modules and biases may be trained beside the adapters
            raise ConfigError(
                f"cache_vision_features=true keeps what vision tower and projector give, but {moving[0]} would be trained: leave "
                "it out of lora_modules_to_save and peft, or leave cache_vision_features out"
            )
        assert isinstance(likelihood, PicturedLikelihood)
        cache = FeatureCache(model, likelihood.expander, likelihood.settings(), context.precision)
        units = units_of((*data.train, *data.held_out), likelihood)
        accelerator = context.accelerator
        with accelerator.autocast():
            made = cache.fill(
                units,
                share=(accelerator.process_index, accelerator.num_processes),
                wait=accelerator.wait_for_everyone,
                progress=context.console.track if accelerator.is_main_process else None,
            )
        context.record.check(
            "vision features",
            "note",
            f"{made} of {len(units)} pictures or clips encoded, the others were there",
        )
        likelihood.features = cache

    def encoded(
        self, examples: list[Encoded[EncodedText]], objective: Objective
    ) -> list[Encoded[EncodedText]]:
        """Branches without a gradient set aside."""
        return [set_aside(example, objective) for example in examples]

    def known(self, context: Context, likelihood: TokenLikelihood, data: PreparedData) -> None:
        """Videos that are put together anew each epoch; what is to be told of videos."""
        assert isinstance(likelihood, PicturedLikelihood)
        drawn = {example.id: redraw_of(example) for example in data.train}
        slots = {name: redraw.distractors + 1 for name, redraw in drawn.items() if redraw is not None}
        if slots:
            likelihood.redrawing = Redrawing(context.config.seed, slots)
            told = f"of {len(slots)} of {len(drawn)} examples, other distractors and slots each epoch"
            context.record.check("videos drawn anew", "note", told)
        built = Path(context.config.data).expanduser().parent / "build.json"
        if Path(context.config.data).expanduser().is_file() and built.is_file():
            context.record.json("build", json.loads(built.read_text("utf-8")))
        if likelihood.expander.shows_videos and (note := likelihood.expander.clips.note):
            context.record.check("frames", "note", note)

    def hints(self, likelihood: TokenLikelihood) -> list[Hint]:
        """Videos that had to be shown in fewer frames."""
        assert isinstance(likelihood, PicturedLikelihood)
        return sparser_hints(likelihood)

    def weigh(
        self, context: Context, model: nn.Module, likelihood: TokenLikelihood, data: PreparedData
    ) -> None:
        """Refused: what tells prompts apart here may be in their pictures."""
        raise ConfigError(
            "density_ratio_weights compares prompts of text, and these may have pictures: leave it out, or give the rows a "
            "column density_ratio"
        )

    def first_pair(self, context: Context, example: Encoded[EncodedText]) -> dict[str, Any]:
        """The first example decoded, runs of image tokens shortened, with its pictures."""
        pair = first_pair(example, self.tokenizer)
        for kind in ("image", "video"):
            token = self.tokens[kind]
            if token is not None:
                pair = shortened(pair, self.tokenizer.decode([token]), kind)
        edge = example.comparisons[0]
        ends = {"chosen": edge.first, "rejected": edge.second}
        contrasts = {name: k for name, k in edge.branches.items() if k < len(example.items)}
        seen: dict[str, str] = {}
        for name, place in {**ends, **contrasts}.items():
            item = None if place is None else example.items[place]
            for k, medium in enumerate(item.pictures if isinstance(item, EncodedPictured) else ()):
                if medium.digest not in seen:
                    kind = "video" if isinstance(medium, Video) else "image"
                    title = kind if not seen else f"{kind} of {name}"
                    shown = strip_of(medium, anchor_of(item)) if isinstance(medium, Video) else medium.image()
                    path = context.record.picture_file(f"first-{name}-{k}", shown)
                    pair.setdefault("pictures", []).append({"name": title, "path": path})
                    seen[medium.digest] = path
        return pair

    def samples(self, *args: Any) -> TextSamples:
        """Answers to prompts with pictures."""
        world = world_of(self.context.config.data)
        return PicturedSamples(*args, record=self.context.record, marker=marker_of(world))

    def probe(
        self,
        inner: Probe,
        context: Context,
        model: nn.Module,
        likelihood: TokenLikelihood,
        data: PreparedData,
    ) -> Probe:
        """Accuracy by position, where videos have an anchor."""
        assert isinstance(likelihood, PicturedLikelihood)
        held_out = around_anchors(data.held_out)
        examples = held_out or around_anchors(data.train)
        if not examples or context.objective.unpaired:
            return inner
        split = "eval" if held_out and data.not_held_out is None else "train_rows"
        return PositionProbe(inner, likelihood, model, context.accelerator, context.record, examples, split)

    def save(self, folder: Path, policy: LoadedModel, state: dict[str, Any] | None) -> None:
        """The trained model with tokenizer and processor."""
        template = self.tokenizer.chat_template
        if self.images.lends_template:
            self.tokenizer.chat_template = None
        try:
            super().save(folder, policy, state)
        finally:
            self.tokenizer.chat_template = template
        save_processor(folder, policy.source)


def marker_of(world: Any) -> Marker | None:
    """What a world knows to be wrong in an answer; None where it knows nothing."""
    if not hasattr(world, "hallucinated"):
        return None
    return lambda condition, text: [
        (mention.start, mention.end, "not in the picture") for mention in world.hallucinated(condition, text)
    ]


def set_aside(example: Encoded[EncodedText], objective: Objective) -> Encoded[EncodedText]:
    """An example whose branches without a gradient are scored apart from the others.

    Such branches come last among the items (`Wanted.of_row`), so that no index changes.
    """
    apart = {name for name, branch in objective.branches.items() if not branch.gradient}
    places = [k for edge in example.comparisons for name, k in edge.branches.items() if name in apart]
    if not places:
        return example
    first = min(places)
    return replace(example, items=example.items[:first], aside=(*example.aside, *example.items[first:]))


def units_of(examples: Sequence[Encoded[EncodedText]], likelihood: PicturedLikelihood) -> dict[str, AnyUnit]:
    """Pictures and clips that some examples show or may show, by name."""
    found: dict[str, AnyUnit] = {}
    for example in examples:
        redraw = redraw_of(example)
        media: list[Medium] = [] if redraw is None else [Video((clip,)) for clip in redraw.clips]
        for item in (*example.items, *example.aside):
            for seen in (item, item.reference, getattr(item, "misled_by", None)):
                media += seen.pictures if isinstance(seen, EncodedPictured) else ()
        for medium in media:
            found |= {name_of(unit): unit for unit in likelihood.expander.units([medium])}
        for item in example.items:  # pictures of one prompt may be processed together
            if isinstance(item, EncodedPictured):
                found |= {name_of(unit): unit for unit in likelihood.expander.units(item.pictures)}
    return found


def redraw_of(example: Encoded[EncodedText]) -> Redraw | None:
    """What an example's video is drawn from; None where it stays."""
    for item in example.items:
        if isinstance(item, EncodedPictured) and item.drawn_from is not None:
            redraw: Redraw = item.drawn_from.condition["redraw"]
            return redraw
    return None


def anchor_of(item: EncodedText | None) -> ClipRef | None:
    """The clip that the reference sees alone; None where it sees what the policy sees."""
    seen = None if item is None else item.reference
    videos = videos_of(seen.pictures) if isinstance(seen, EncodedPictured) else ()
    return videos[0].clips[0] if videos and len(videos[0].clips) == 1 else None


def shortened(pair: dict[str, Any], token: str, kind: str) -> dict[str, Any]:
    """A decoded pair in which a run of tokens of images or videos is told by its length."""
    pattern = re.compile(rf"(?:{re.escape(token)}\s*){{4,}}")

    def told(text: str) -> str:
        return pattern.sub(lambda found: f"[{kind}: {found.group(0).count(token)} tokens]", text)

    for side in pair["sides"]:
        for segment in side["segments"]:
            segment["text"] = told(segment["text"])
    return pair
