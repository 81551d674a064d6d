"""Token log-likelihood of a completion given its prompt and the pictures and videos in it.

Everything that holds for text holds here: one rule of truncation (the end of the completion is cut, the prompt and with it
every picture never), shared prompts, packed rows, scores at completion tokens alone. What is added: a picture in a prompt
becomes tokens, whose features the model computes once a picture and batch, and a video those of its clips; models whose
positions have several axes are asked for those of each sequence alone. What of it a model allows is found by trial, against one
item at a time through its own processor.

Legend: N items, R rows, T row length, C axes of positions, K scored tokens.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded, Example, Item, UnusableItem
from prefopt.likelihoods.base import ItemScores
from prefopt.likelihoods.capability import Ability, ability_of, causal_lm, trunk_of
from prefopt.likelihoods.layout import Sharing
from prefopt.likelihoods.plan import EncodedText, Plan, plan_rows
from prefopt.likelihoods.rendering import ODDITIES, oddities, render
from prefopt.likelihoods.tokens import TokenLikelihood, as_messages, padding_within
from prefopt.modalities.vision_language.expanding import Expander
from prefopt.modalities.vision_language.feature_cache import FeatureCache
from prefopt.modalities.vision_language.features import dealt_out
from prefopt.modalities.vision_language.images import Images
from prefopt.modalities.vision_language.kept import told_settings
from prefopt.modalities.vision_language.media import Medium, pictures_of
from prefopt.modalities.vision_language.plan import (
    EncodedPictured,
    PicturedPlan,
    occurrences,
    places_of,
    told_apart,
)
from prefopt.modalities.vision_language.probes import probes_of
from prefopt.modalities.vision_language.prompts import (
    KINDS,
    MARK,
    in_blocks,
    in_strings,
    marks,
    takes_blocks,
)
from prefopt.modalities.vision_language.shown import CALLED_WITH, Shown
from prefopt.modalities.vision_language.video.fitting import with_room
from prefopt.modalities.vision_language.video.redrawing import Redrawing


class PicturedLikelihood(TokenLikelihood):
    """Sum of token log-probabilities, given text and pictures.

    Args:
        images: the model's processor.
        max_length: most tokens of prompt and completion together, those of pictures included; None for no limit.
        positions: of the models that will score.
        video_token_id: of the model's token for videos; None: it has none of its own.
    """

    def __init__(
        self,
        images: Images,
        max_length: int | None = 1024,
        positions: int | None = None,
        video_token_id: int | None = None,
    ) -> None:
        super().__init__(images.processor.tokenizer, max_length, positions)
        self.images = images
        self.expander = Expander(images, video_token_id)
        self._blocks: dict[str, bool] = {}
        self._rope_index: Any = None
        self.features: FeatureCache | None = None
        self.redrawing: Redrawing | None = None
        self.sparser = 0

    # -- from items to tokens --------------------------------------------------------------------------------

    def encode(self, item: Item) -> EncodedPictured:
        """Tokenize one item, its pictures included, and cut its completion's end to `max_length`."""
        encoded = super().encode(item)
        own = self._pictured(encoded, item.condition)
        if "redraw" in item.condition:
            own = replace(own, drawn_from=item)
        if encoded.reference is None or item.reference_condition is None:
            return own
        return replace(own, reference=self._pictured(encoded.reference, item.reference_condition))

    def _pictured(self, encoded: EncodedText, condition: Mapping[str, Any]) -> EncodedPictured:
        values = {f.name: getattr(encoded, f.name) for f in fields(EncodedText)}
        guide = None
        if condition.get("misled_by"):
            guide = replace(self._pictured(encoded, {}), pictures=tuple(condition["misled_by"]))
        return EncodedPictured(**values, pictures=pictures_of(condition), misled_by=guide)

    def tokenize(
        self, condition: Mapping[str, Any], sample: Any, ended: bool = True
    ) -> tuple[list[int], list[int]]:
        """Token ids of the prompt alone, and of prompt and completion together, uncut; all completions are whole."""
        prompt, media = condition["prompt"], pictures_of(condition)
        if isinstance(prompt, str):
            if not isinstance(sample, str):
                raise UnusableItem("the prompt is text but the completion is a list of messages")
            eos = self.tokenizer.eos_token or ""
            closed = sample if not sample or sample.endswith(eos) else sample + eos
            if self.images.suffixed:
                return self.expander.with_suffix(prompt, closed, media)
            asked, whole, chat = self.expander.placed(prompt), self.expander.placed(prompt + closed), False
        else:
            asked, whole, chat = (
                self._rendered(condition, sample),
                self._rendered(condition, sample, whole=True),
                True,
            )
        return self.expander.ids(asked, media, chat), self.expander.ids(whole, media, chat)

    def prompt_ids(self, condition: Mapping[str, Any]) -> list[int]:
        """Token ids of a prompt ready for generation."""
        prompt, media = condition["prompt"], pictures_of(condition)
        if isinstance(prompt, str):
            if self.images.suffixed:
                return self.expander.with_suffix(prompt, "", media)[0]
            return self.expander.ids(self.expander.placed(prompt), media, chat=False)
        return self.expander.ids(self._rendered(condition, []), media, chat=True)

    def oddities(self, item: Item) -> list[str]:
        """What the chat template does to an item that nobody would expect."""
        if isinstance(item.condition["prompt"], str):
            return []
        self._need_template()
        condition = {**item.condition, "prompt": self._messages(item.condition["prompt"])}
        with self.clock.stands():
            found = oddities(self.tokenizer, condition, self._messages(as_messages(item.sample)))
        return [ODDITIES[name] for name in found]

    def _messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        places = self.expander.places(marks(messages))
        words = {mark: place for mark, place in places.items() if not self._takes_blocks(mark, place)}
        if not words:
            return in_blocks(messages)
        return in_strings(messages, places) if MARK in words else in_blocks(in_strings(messages, words))

    def _takes_blocks(self, mark: str, place: str) -> bool:
        if mark not in self._blocks:
            self._blocks[mark] = takes_blocks(self.tokenizer, place, KINDS[mark])
        return self._blocks[mark]

    def _rendered(self, condition: Mapping[str, Any], sample: Any, whole: bool = False) -> str:
        """A conversation as text: its prompt ready for generation, or all of it."""
        self._need_template()
        prompt = condition["prompt"]
        messages = [*prompt, *as_messages(sample)] if whole else prompt
        with self.clock.stands():
            text: str = render(
                self.tokenizer,
                condition,
                self._messages(messages),
                tokenize=False,
                generation_prompt=not whole,
            )
        expected = marks(messages)
        for mark, place in self.expander.places(expected).items():
            if text.count(place) != expected.count(mark):
                raise UnusableItem(
                    f"the chat template renders {text.count(place)} of {expected.count(mark)} places of {KINDS[mark]}s: save the "
                    f"processor with a template for {KINDS[mark]}s",
                    "chat_template",
                )
        return text

    def fitted(self, example: Example) -> Example:
        """The example, with fewer frames of each clip where its videos leave no room within `max_length`."""
        found = with_room(
            example, self.max_length, lambda item: len(self.tokenize(item.condition, item.sample)[1])
        )
        self.sparser += found is not example
        return found

    def at(self, example: Encoded[EncodedText], epoch: int) -> Encoded[EncodedText]:
        """The example, its video put together anew in each epoch where that is asked for; evaluations see it as it is."""
        drawing = self.redrawing
        if drawing is None or epoch < 0 or example.id not in drawing:
            return example
        items = [self._redrawn(item, drawing, example.id, epoch) for item in example.items]
        return replace(example, items=tuple(self.align(items)))

    def _redrawn(self, item: EncodedText, drawing: Redrawing, name: str, epoch: int) -> EncodedText:
        if not isinstance(item, EncodedPictured) or item.drawn_from is None:
            return item
        source = item.drawn_from
        video = drawing.video(source.condition["redraw"], name, epoch)
        if self.expander.alike(
            item.pictures, (video,)
        ):  # so the tokens are, and only what they stand for differs
            return replace(item, pictures=(video,))
        fresh = self.encode(Item({**source.condition, "pictures": (video,)}, source.sample))
        return replace(fresh, reference=item.reference, drawn_from=source)

    def renewed(self, example: Encoded[EncodedText]) -> bool:
        """Whether the reference sees it otherwise in each epoch: it does not where it sees the anchor alone."""
        moving = self.redrawing is not None and example.id in self.redrawing
        return moving and any(item.reference is None for item in example.items)

    # -- from tokens to rows ---------------------------------------------------------------------------------

    def adapt(self, model: nn.Module, densest: Sharing = "shared") -> Ability:
        """Find out how densely this model can be scored, pictures included, and plan for it from now on."""
        self.pad_token_id = padding_within(model, self.pad_token_id)
        inner: Any = causal_lm(model)
        self._rope_index = getattr(trunk_of(inner), "get_rope_index", None)
        self.ability = ability_of(
            model,
            lambda m, plan, ability: self._score(m, plan, (), ability).logp_NL,
            densest,
            more=probes_of(self.prompt_ids, self.expander.feature_tokens, self.expander.shows_videos),
            lay=self.lay,
        )
        return self.ability

    def plan(self, items: Sequence[EncodedText]) -> Plan:
        """Lay the items out in rows, as densely as the model allows."""
        ability = self.ability
        return self.lay(
            items, self.pad_token_id, ability.sharing, ability.hidden, ability.longest, switch=ability.switch
        )

    def lay(self, items: Sequence[EncodedText], *args: Any, **options: Any) -> Plan:
        """As `plan_rows`, with what they show."""
        pictured = [item if isinstance(item, EncodedPictured) else self._pictured(item, {}) for item in items]
        batch = Shown(self.expander, self.features, [item.pictures for item in pictured])
        sequences = [
            # made-up rows of text may hold the image token of a small vocabulary, as any other
            told_apart(item.ids, self.expander.feature_tokens, own, batch.tokens_of)
            if isinstance(given, EncodedPictured)
            else given.ids
            for given, item, own in zip(items, pictured, batch.numbers, strict=True)
        ]
        plan = plan_rows(pictured, *args, **{**options, "sequences": sequences})
        misled = [item for item in pictured if item.misled_by is not None]
        return PicturedPlan(
            **{f.name: getattr(plan, f.name) for f in fields(Plan)},
            position_CRT=self._positions(pictured, plan, batch),
            type_RT=self._types(pictured, plan) if self.images.typed else None,
            streams=batch.streams(occurrences(plan.layout, batch.tokens_of)),
            misled=self.lay([item.misled_by for item in misled if item.misled_by], *args, **options)
            if misled
            else None,
            misled_K=places_of(plan, [n for n, item in enumerate(pictured) if item.misled_by])
            if misled
            else None,
        )

    def _positions(self, items: Sequence[EncodedPictured], plan: Plan, batch: Shown) -> Tensor | None:
        """(C, R, T) positions of each token within its own sequence, for models that count them on several axes."""
        grids = [batch.grids(item.pictures) for item in items]
        if not any(grids):
            return None
        if self._rope_index is None:
            raise ValueError(
                "this model counts positions on several axes: call adapt(model) before plans are made"
            )
        position_CRT = plan.position_RT[None].repeat(3, 1, 1)
        for n, (item, grid) in enumerate(zip(items, grids, strict=True)):
            if not item.pictures:
                continue
            ids_1T = torch.tensor([item.ids[:-1].tolist()])
            found_31T, _ = self._rope_index(
                ids_1T, mm_token_type_ids=self.kinds(ids_1T), attention_mask=torch.ones_like(ids_1T), **grid
            )
            position_CRT[:, plan.layout.row_of[n], plan.layout.path_of[n]] = found_31T[:, 0]
        return position_CRT

    def kinds(self, ids: Tensor) -> Tensor:
        """What each token stands for, as models are told it: 1 features of an image, 2 of a video, 0 a word."""
        video = self.expander.video_token_id
        kind = (ids == self.images.image_token_id).int()
        return kind if video is None else kind + 2 * (ids == video).int()

    def _types(self, items: Sequence[EncodedPictured], plan: Plan) -> Tensor:
        """(R, T) kind of each token: 1 for those of images; or 0 for the prompt, which is read in both directions, else 1."""
        type_RT = torch.full_like(plan.input_ids_RT, int(self.images.suffixed))
        for n, item in enumerate(items):
            r, path = plan.layout.row_of[n], plan.layout.path_of[n]
            if self.images.suffixed:
                type_RT[r, path[: item.start]] = 0
            else:
                type_RT[r, path] = (torch.tensor(item.ids[:-1]) == self.images.image_token_id).long()
        return type_RT

    # -- from rows to scores ---------------------------------------------------------------------------------

    def inputs(self, model: nn.Module, plan: Plan, ability: Ability) -> dict[str, Any]:
        """What the model is called with."""
        inputs = super().inputs(model, plan, ability)
        if not isinstance(plan, PicturedPlan):
            return inputs
        if plan.position_CRT is not None:
            inputs["position_ids"] = plan.position_CRT
        if plan.type_RT is not None:
            inputs["token_type_ids"] = plan.type_RT
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        for kind, stream in plan.streams.items():
            given = stream.chunks[0] if stream.chunks else {CALLED_WITH[kind]: torch.zeros(1)}
            for name, value in given.items():
                inputs[name] = value.to(dtype) if value.is_floating_point() else value
        return inputs

    def generation_inputs(
        self, pictures: Sequence[Sequence[Medium]], ids_BT: Tensor, model: nn.Module
    ) -> dict[str, Tensor]:
        """What a model is given to generate with, beside token ids padded on the left.

        Args:
            pictures: of each prompt, videos included.
            ids_BT: (B, T) token ids.
            model: for its dtype.
        """
        if not any(pictures):
            return {}
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        batch = Shown(self.expander, None, pictures)
        inputs = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in batch.whole(pictures).items()
        }
        if self._rope_index is not None or any(name.endswith("grid_thw") for name in inputs):
            inputs["mm_token_type_ids"] = self.kinds(ids_BT).long()
        inner: Any = causal_lm(model) or model
        if "video_grid_thw" in inputs and "second_per_grid_ts" in inspect.signature(inner.forward).parameters:
            # what it takes for absent is as many ones as a row has tokens, which may be fewer than a batch has videos
            inputs["second_per_grid_ts"] = torch.ones(len(inputs["video_grid_thw"]))
        if self.images.typed:
            here_BT = (ids_BT == self.images.image_token_id).long()
            inputs["token_type_ids"] = torch.zeros_like(here_BT) if self.images.suffixed else here_BT
        return inputs

    def reading(self, model: nn.Module, plan: Plan) -> AbstractContextManager[Any]:
        """Within it, the model reads the plan's rows."""
        stack = ExitStack()
        stack.enter_context(super().reading(model, plan))
        if isinstance(plan, PicturedPlan) and plan.streams:
            stack.enter_context(dealt_out(model, plan.streams))
        return stack

    def _score(self, model: nn.Module, plan: Plan, extras: Collection[str], ability: Ability) -> ItemScores:
        if isinstance(plan, PicturedPlan) and plan.misled is not None and plan.misled_K is not None:
            with torch.no_grad():
                found_KV = super()._score(model, plan.misled, {"distribution"}, ability).distribution_KV
            assert found_KV is not None  # asked for
            plan = replace(plan, target_K=plan.target_K.index_put((plan.misled_K,), found_KV.argmax(-1)))
        return super()._score(model, plan, extras, ability)

    # -- names -----------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """Beside those of text, how images are prepared."""
        told = {"images": told_settings(self.images.processor.image_processor.to_dict())}
        if self.expander.shows_videos:
            told["videos"] = self.expander.clips.settings
        return {**super().settings(), **told}

    def key(self, item: EncodedText) -> str:
        """Digest of the tokens and pictures that are read and of which tokens are scored."""
        digest = hashlib.blake2b(super().key(item).encode(), digest_size=16)
        if isinstance(item, EncodedPictured):
            digest.update("".join(picture.digest + " " for picture in item.pictures).encode())
            if item.misled_by is not None:
                digest.update(f"misled by {self.key(item.misled_by)}".encode())
        return digest.hexdigest()

    def family(self, item: EncodedText) -> bytes:
        """Its prompt and pictures, which can be read once for all its completions."""
        pictures = item.pictures if isinstance(item, EncodedPictured) else ()
        return super().family(item) + "".join(picture.digest for picture in pictures).encode()
