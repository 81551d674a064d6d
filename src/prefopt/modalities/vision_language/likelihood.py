"""Token log-likelihood of a completion given its prompt and the pictures in it.

Everything that holds for text holds here: one rule of truncation (the end of the completion is cut, the prompt and with it
every picture never), shared prompts, packed rows, scores at completion tokens alone. What is added: a picture in a prompt
becomes tokens, whose features the model computes once a picture and batch; models whose positions have several axes are
asked for those of each sequence alone. What of it a model allows is found by trial, against one item at a time through its
own processor.

Legend: N items, R rows, T row length, C axes of positions, K scored tokens.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.comparisons import Item, UnusableItem
from prefopt.likelihoods.base import ItemScores
from prefopt.likelihoods.capability import Ability, ability_of, causal_lm, trunk_of
from prefopt.likelihoods.layout import Sharing
from prefopt.likelihoods.plan import EncodedText, Plan, plan_rows
from prefopt.likelihoods.rendering import ODDITIES, oddities, render
from prefopt.likelihoods.tokens import TokenLikelihood, as_messages, padding_within
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.feature_cache import FEATURES, FeatureCache, read_from_disk
from prefopt.modalities.vision_language.features import dealt_out
from prefopt.modalities.vision_language.images import Images, Unit, name_of
from prefopt.modalities.vision_language.plan import (
    EncodedPictured,
    PicturedPlan,
    occurrences,
    places_of,
    told_apart,
)
from prefopt.modalities.vision_language.prompts import MARK, in_blocks, in_strings, marks, takes_blocks


class PicturedLikelihood(TokenLikelihood):
    """Sum of token log-probabilities, given text and pictures.

    Args:
        images: the model's processor.
        max_length: most tokens of prompt and completion together, those of pictures included; None for no limit.
        positions: of the models that will score.
    """

    def __init__(self, images: Images, max_length: int | None = 1024, positions: int | None = None) -> None:
        super().__init__(images.processor.tokenizer, max_length, positions)
        self.images = images
        self._blocks: bool | None = None
        self._faithful: dict[int, bool] = {}
        self._rope_index: Any = None
        self.features: FeatureCache | None = None

    # -- from items to tokens --------------------------------------------------------------------------------

    def encode(self, item: Item) -> EncodedPictured:
        """Tokenize one item, its pictures included, and cut its completion's end to `max_length`."""
        encoded = super().encode(item)
        own = self._pictured(encoded, item.condition)
        if encoded.reference is None or item.reference_condition is None:
            return own
        return replace(own, reference=self._pictured(encoded.reference, item.reference_condition))

    def _pictured(self, encoded: EncodedText, condition: Mapping[str, Any]) -> EncodedPictured:
        values = {f.name: getattr(encoded, f.name) for f in fields(EncodedText)}
        guide = None
        if condition.get("misled_by"):
            guide = replace(self._pictured(encoded, {}), pictures=tuple(condition["misled_by"]))
        return EncodedPictured(**values, pictures=pictures_of(condition), misled_by=guide)

    def tokenize(self, condition: Mapping[str, Any], sample: Any) -> tuple[list[int], list[int]]:
        """Token ids of the prompt alone, and of prompt and completion together, uncut."""
        prompt, pictures = condition["prompt"], pictures_of(condition)
        if isinstance(prompt, str):
            if not isinstance(sample, str):
                raise UnusableItem("the prompt is text but the completion is a list of messages")
            eos = self.tokenizer.eos_token or ""
            ended = sample if not sample or sample.endswith(eos) else sample + eos
            if self.images.suffixed:
                return self._with_suffix(prompt, ended, pictures)
            asked, whole, chat = self._placed(prompt), self._placed(prompt + ended), False
        else:
            asked, whole, chat = (
                self._rendered(condition, sample),
                self._rendered(condition, sample, whole=True),
                True,
            )
        return self._ids(asked, pictures, chat), self._ids(whole, pictures, chat)

    def prompt_ids(self, condition: Mapping[str, Any]) -> list[int]:
        """Token ids of a prompt ready for generation."""
        prompt, pictures = condition["prompt"], pictures_of(condition)
        if isinstance(prompt, str):
            if self.images.suffixed:
                return self._with_suffix(prompt, "", pictures)[0]
            return self._ids(self._placed(prompt), pictures, chat=False)
        return self._ids(self._rendered(condition, []), pictures, chat=True)

    def oddities(self, item: Item) -> list[str]:
        """What the chat template does to an item that nobody would expect."""
        if isinstance(item.condition["prompt"], str):
            return []
        self._need_template()
        condition = {**item.condition, "prompt": self._messages(item.condition["prompt"])}
        with self.clock.stands():
            found = oddities(self.tokenizer, condition, self._messages(as_messages(item.sample)))
        return [ODDITIES[name] for name in found]

    def _placed(self, text: str) -> str:
        return text.replace(MARK, self.images.place)

    def units(self, pictures: Sequence[Picture]) -> list[Unit]:
        """A prompt's pictures as they are processed: each alone, or all together where company matters."""
        together = len(pictures) > 1 and not self._faithful.get(len(pictures), True)
        return [tuple(pictures)] if together else [(picture,) for picture in pictures]

    def _messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self._blocks is None:
            self._blocks = takes_blocks(self.tokenizer, self.images.placeholder)
        return in_blocks(messages) if self._blocks else in_strings(messages, self.images.placeholder)

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
        here, expected = text.count(self.images.placeholder), marks(messages)
        if here != expected:
            raise UnusableItem(
                f"the chat template renders {here} of {expected} places of images: save the processor with a template "
                "for images",
                "chat_template",
            )
        return text

    def _ids(self, text: str, pictures: Sequence[Picture], chat: bool) -> list[int]:
        """Tokens of a text whose placeholders stand for pictures.

        The placeholders are expanded here, by what the processor makes of each alone. The first text with so many pictures is
        given to the processor as a whole, too; where that reads otherwise, all such texts are.
        """
        pieces = text.split(self.images.placeholder)
        if len(pieces) - 1 != len(pictures):
            raise UnusableItem(
                f"the texts have {len(pieces) - 1} places for {len(pictures)} image(s): needed a placeholder "
                f"({self.images.placeholder}) for each, or none at all",
                "image_places",
            )
        options = {"add_special_tokens": False} if chat else {}
        found = [self.images.expansion(picture) for picture in pictures]
        expanded = pieces[0] + "".join(
            inserted + piece for (inserted, _), piece in zip(found, pieces[1:], strict=True)
        )
        ids: list[int] = self.tokenizer(expanded, **options)["input_ids"]
        if pictures:
            if len(pictures) not in self._faithful:
                self._faithful[len(pictures)] = self._asked(text, pictures, options) == ids
            if not self._faithful[len(pictures)]:
                ids = self._asked(text, pictures, options)
        if not self._faithful.get(len(pictures), True):
            found = [("", self.images.processed(unit).tokens) for unit in self.units(pictures)]
        expected = sum(tokens for _, tokens in found)
        if (held := ids.count(self.images.image_token_id)) != expected:
            raise UnusableItem(
                f"the tokens hold {held} places of images, and {len(pictures)} image(s) need {expected}: does a text hold the "
                "image token itself?",
                "image_places",
            )
        return ids

    def _asked(self, text: str, pictures: Sequence[Picture], options: Mapping[str, Any]) -> list[int]:
        out = self.images.whole(text, [picture.image() for picture in pictures], **options)
        ids: list[int] = out["input_ids"][0].tolist()
        return ids

    def _with_suffix(
        self, prompt: str, completion: str, pictures: Sequence[Picture]
    ) -> tuple[list[int], list[int]]:
        """For processors that write prompts in a form of their own, which no text shows."""
        if marks(prompt) != len(pictures) or not pictures:
            raise UnusableItem(
                f"the prompt has places for {marks(prompt)} of {len(pictures)} image(s)", "image_places"
            )
        ids = self._asked(self._placed(prompt), pictures, {})
        return ids, ids + self.tokenizer(completion, add_special_tokens=False)["input_ids"]

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
            more=[self.probes()],
            lay=self.lay,
        )
        return self.ability

    def probes(self) -> list[EncodedPictured]:
        """Two completions of a prompt with one picture, two of the same words with another, and one of a row of two."""
        first, second = made_up(0), made_up(1)
        a, b, c, d, *_ = (k for k in range(1, 7) if k != self.images.image_token_id)

        def item(pictures: tuple[Picture, ...], *tail: int) -> EncodedPictured:
            prompt = self.prompt_ids(
                {"prompt": "a ".join(MARK for _ in pictures) + "a b", "pictures": pictures}
            )
            return EncodedPictured(array("i", [*prompt, *tail]), len(prompt), pictures=pictures)

        # turned round, a completion stays where it is in the sorted order: another order is another sum of the same numbers
        items = [item((first,), a, b, c, b), item((first,), d, b, c), item((second,), a, b, c, b)]
        try:
            return [*items, item((first, second), d, b, c, a)]
        except UnusableItem:  # one picture a prompt is all that this processor takes
            return [*items, item((second,), d, b, c, a)]

    def plan(self, items: Sequence[EncodedText]) -> Plan:
        """Lay the items out in rows, as densely as the model allows."""
        ability = self.ability
        return self.lay(
            items, self.pad_token_id, ability.sharing, ability.hidden, ability.longest, switch=ability.switch
        )

    def lay(self, items: Sequence[EncodedText], *args: Any, **options: Any) -> Plan:
        """As `plan_rows`, with the pictures."""
        pictured = [item if isinstance(item, EncodedPictured) else self._pictured(item, {}) for item in items]
        number: dict[str, int] = {}
        distinct: list[Unit] = []
        units = [self.units(item.pictures) for item in pictured]
        for unit in (unit for of_item in units for unit in of_item):
            if name_of(unit) not in number:
                number[name_of(unit)] = len(distinct)
                distinct.append(unit)
        images, tokens_of = (self.features or self.images).batch(distinct)
        numbers = [[number[name_of(unit)] for unit in of_item] for of_item in units]
        sequences = [
            # made-up rows of text may hold the image token of a small vocabulary, as any other
            told_apart(item.ids, self.images.image_token_id, own, tokens_of)
            if isinstance(given, EncodedPictured)
            else given.ids
            for given, item, own in zip(items, pictured, numbers, strict=True)
        ]
        plan = plan_rows(pictured, *args, **{**options, "sequences": sequences})
        misled = [item for item in pictured if item.misled_by is not None]
        return PicturedPlan(
            **{f.name: getattr(plan, f.name) for f in fields(Plan)},
            position_CRT=self._positions(pictured, plan, images, numbers),
            type_RT=self._types(pictured, plan) if self.images.typed else None,
            images=images,
            tokens_of=tokens_of,
            order=occurrences(plan.layout, tokens_of),
            misled=self.lay([item.misled_by for item in misled if item.misled_by], *args, **options)
            if misled
            else None,
            misled_K=places_of(plan, [n for n, item in enumerate(pictured) if item.misled_by])
            if misled
            else None,
        )

    def _positions(
        self,
        items: Sequence[EncodedPictured],
        plan: Plan,
        images: Mapping[str, Tensor],
        numbers: Sequence[Sequence[int]],
    ) -> Tensor | None:
        """(C, R, T) positions of each token within its own sequence, for models that count them on several axes."""
        if "image_grid_thw" not in images:
            return None
        if self._rope_index is None:
            raise ValueError(
                "this model counts positions on several axes: call adapt(model) before plans are made"
            )
        position_CRT = plan.position_RT[None].repeat(3, 1, 1)
        for n, item in enumerate(items):
            ids_1T = torch.tensor([item.ids[:-1].tolist()])
            if not item.pictures:
                continue
            found_31T, _ = self._rope_index(
                ids_1T,
                mm_token_type_ids=(ids_1T == self.images.image_token_id).int(),
                image_grid_thw=images["image_grid_thw"][list(numbers[n])],
                attention_mask=torch.ones_like(ids_1T),
            )
            position_CRT[:, plan.layout.row_of[n], plan.layout.path_of[n]] = found_31T[:, 0]
        return position_CRT

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
        for name, value in plan.images.items():
            if name != FEATURES:
                inputs[name] = value.to(dtype) if value.is_floating_point() else value
        return inputs

    def generation_inputs(
        self, pictures: Sequence[Sequence[Picture]], ids_BT: Tensor, model: nn.Module
    ) -> dict[str, Tensor]:
        """What a model is given to generate with, beside token ids padded on the left.

        Args:
            pictures: of each prompt.
            ids_BT: (B, T) token ids.
            model: for its dtype.
        """
        if not any(pictures):
            return {}
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        images, _ = self.images.batch([unit for of_prompt in pictures for unit in self.units(of_prompt)])
        inputs = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in images.items()
        }
        here_BT = (ids_BT == self.images.image_token_id).long()
        if self._rope_index is not None or "image_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = here_BT
        if self.images.typed:
            inputs["token_type_ids"] = torch.zeros_like(here_BT) if self.images.suffixed else here_BT
        return inputs

    def reading(self, model: nn.Module, plan: Plan) -> AbstractContextManager[Any]:
        """Within it, the model reads the plan's rows."""
        stack = ExitStack()
        stack.enter_context(super().reading(model, plan))
        if isinstance(plan, PicturedPlan) and plan.images:
            given = plan.images.get(FEATURES)
            if given is None or self.features is None:
                stack.enter_context(dealt_out(model, plan.tokens_of, plan.order))
            else:
                stack.enter_context(
                    read_from_disk(model, given, self.features.form, plan.tokens_of, plan.order)
                )
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
        told = repr(sorted((k, str(v)) for k, v in self.images.processor.image_processor.to_dict().items()))
        return {**super().settings(), "images": hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}

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


def pictures_of(condition: Mapping[str, Any]) -> tuple[Picture, ...]:
    """The pictures of a condition, in the order of their places in the prompt."""
    return tuple(condition.get("pictures") or ())


def made_up(number: int) -> Picture:
    """A small picture that no data set has."""
    import numpy as np

    from prefopt.sources.pictures import as_ref

    pixels_HW3 = np.random.default_rng(number).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return Picture(as_ref(pixels_HW3, f"made-up picture {number}"))
