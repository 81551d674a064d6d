"""Token log-likelihood of a completion given its prompt, for any causal language model of transformers.

Truncation: prompt and completion are tokenized together, and the *end of the completion* is cut so that the whole fits
`max_length` and the model's positions, each side on its own. The prompt is never cut: an item whose prompt alone fills
them is unusable, and its row is reported in `dropped.jsonl`. With `truncation_mode="keep_end"` it is the *beginning of the
whole* that is cut (as in TRL), a beginning-of-sequence token first; then sides of one row may have prompts of their own.

Legend: N items, R rows, T row length, K scored tokens, V vocabulary, L longest completion.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded, Example, Item, UnusableItem
from prefopt.likelihoods.attention import rows_of
from prefopt.likelihoods.base import ItemScores
from prefopt.likelihoods.capability import Ability, ability_of, causal_lm
from prefopt.likelihoods.clock import Clock
from prefopt.likelihoods.flex import Attention, choose, try_flex
from prefopt.likelihoods.forward import balance_weight, balances_experts, experts_loss, scoring_forward
from prefopt.likelihoods.head import MEASURES, Finish, measures, token_logp
from prefopt.likelihoods.layout import Sharing, common_prefix
from prefopt.likelihoods.plan import EncodedText, Plan, plan_rows
from prefopt.likelihoods.rendering import ODDITIES, oddities, render
from prefopt.likelihoods.rotary import own_positions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TruncationMode = Literal["keep_start", "keep_end"]


class TokenLikelihood:
    """Sum of token log-probabilities.

    Args:
        tokenizer: the model's tokenizer; its chat template is used for rows of messages.
        max_length: most tokens of prompt and completion together; None for no limit.
        positions: of the models that will score, see `models.positions`; rows are cut there too. None: not known.
        truncation_mode: of what is longer, "keep_start" or "keep_end".

    Attributes:
        max_length: the smaller of the two.
        limit: what sets it, in words.

    Example:
        >>> likelihood = TokenLikelihood(tokenizer, max_length=512)              # doctest: +SKIP
        >>> plan = likelihood.plan([likelihood.encode(item) for item in items])   # doctest: +SKIP
        >>> likelihood.score(model, plan).logp_N                                  # doctest: +SKIP
    """

    version = 1  # of what a score means; part of the reference cache's key
    ability = Ability()  # until a model has been tried out: one padded row an item

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = 1024,
        positions: int | None = None,
        truncation_mode: TruncationMode = "keep_start",
    ) -> None:
        self.truncation_mode = truncation_mode
        if max_length is not None and max_length < 2:
            raise ValueError(
                f"max_length must be at least 2 (one prompt token, one completion token); given {max_length}"
            )
        self.tokenizer = tokenizer
        self.asked_length, self.positions = max_length, positions
        self.max_length = min((n for n in (max_length, positions) if n is not None), default=None)
        narrow = positions is not None and (max_length is None or positions < max_length)
        self.limit = f"the model's {positions} positions" if narrow else f"max_length={max_length}"
        self.clock = Clock()
        self.pad_token_id: int = next(
            (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None),
            0,  # never attended to, never scored: any id serves
        )

    def encode(self, item: Item) -> EncodedText:
        """Tokenize one item and cut it to `max_length`: its completion's end, or its beginning.

        Raises:
            UnusableItem: the completion is empty, or nothing of it is left within `max_length`.
        """
        encoded = self._encode(item.condition, item.sample, item.ended)
        if item.reference_condition is None:
            return encoded
        anchored = self._encode(item.reference_condition, item.sample, item.ended)
        if anchored.ids[anchored.start :] != encoded.ids[encoded.start :]:
            raise UnusableItem(
                "the completion becomes different tokens under the reference's condition: "
                "shorten the conditions or raise max_length"
            )
        return replace(encoded, reference=anchored)

    def _encode(self, condition: Mapping[str, Any], sample: Any, ended: bool) -> EncodedText:
        prompt_ids, whole_ids = self.tokenize(condition, sample, ended)
        start = common_prefix(array("i", prompt_ids), array("i", whole_ids))
        if start == len(whole_ids):
            raise UnusableItem("the completion is empty: no token is left after the prompt")
        if start == 0:
            # a model predicts each token from the one before: without any prompt the first cannot be scored
            if self.tokenizer.bos_token_id is not None:
                whole_ids = [self.tokenizer.bos_token_id, *whole_ids]
            start = 1
            if start == len(whole_ids):
                raise UnusableItem("prompt and completion together are a single token: nothing can be scored")
        if self.truncation_mode == "keep_end":
            return self._ending(array("i", whole_ids), start)
        if self.max_length is not None and start >= self.max_length:
            raise UnusableItem(f"the prompt alone has {start} tokens and fills {self.limit}", "prompt_length")
        ids = whole_ids if self.max_length is None else whole_ids[: self.max_length]
        return EncodedText(array("i", ids), start, truncated=len(ids) < len(whole_ids))

    def _ending(self, ids: array[int], start: int) -> EncodedText:
        """The last `max_length` tokens; of a completion that fills them, the first that is left is read and not scored."""
        cut = 0 if self.max_length is None else max(0, len(ids) - self.max_length)
        return EncodedText(ids[cut:], max(1, start - cut), truncated=cut >= start, cut=cut)

    def tokenize(
        self, condition: Mapping[str, Any], sample: Any, ended: bool = True
    ) -> tuple[list[int], list[int]]:
        """Token ids of the prompt alone, and of prompt and completion together, uncut.

        Plain text gets the end-of-sequence token appended where absent; conversations end as the chat template
        ends a turn. Neither is there where the sample was cut (`Item.ended`): the model has written no end. The
        beginning-of-sequence token is written once, by the tokenizer or by the template.
        """
        tokenizer, prompt = self.tokenizer, condition["prompt"]
        if isinstance(prompt, str):
            if not isinstance(sample, str):
                raise UnusableItem("the prompt is text but the completion is a list of messages")
            eos = tokenizer.eos_token or ""
            as_is = not ended or not sample or sample.endswith(eos)
            whole_text = prompt + (sample if as_is else sample + eos)
            return tokenizer(prompt)["input_ids"], tokenizer(whole_text)["input_ids"]
        self._need_template()
        whole = [*prompt, *as_messages(sample)]
        with self.clock.stands():
            return (
                render(tokenizer, condition, prompt, tokenize=True, generation_prompt=True),
                render(tokenizer, condition, whole, tokenize=True, ended=ended),
            )

    def _need_template(self) -> None:
        if not self.tokenizer.chat_template:
            raise ValueError(
                "the rows are conversations but the tokenizer has no chat template: set tokenizer.chat_template and "
                "save it with the model, or give prompt, chosen and rejected as plain strings"
            )

    def prompt_ids(self, condition: Mapping[str, Any]) -> list[int]:
        """Token ids of a prompt ready for generation."""
        prompt = condition["prompt"]
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt)["input_ids"])
        self._need_template()
        with self.clock.stands():
            return list(render(self.tokenizer, condition, prompt, tokenize=True, generation_prompt=True))

    @property
    def special_tokens(self) -> dict[int, str]:
        """Ids and texts of the tokenizer's special tokens."""
        named = dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True))
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return {k: str(token) for k, token in added.items() if token.special} | named

    def oddities(self, item: Item) -> list[str]:
        """What the chat template does to an item that nobody would expect, as `rendering.ODDITIES` says it."""
        if isinstance(item.condition["prompt"], str):
            return []
        with self.clock.stands():
            found = oddities(self.tokenizer, item.condition, as_messages(item.sample))
        return [ODDITIES[name] for name in found]

    def align(self, samples: Sequence[EncodedText]) -> list[EncodedText]:
        """Score items under one prompt from one place: the first token that any of them differs in.

        Where a tokenizer joins the end of the prompt with the beginning of a completion, or a template renders one
        completion otherwise, each item alone would be scored from a place of its own.

        Args:
            samples: of one row, under one condition.
        """
        bos = self.tokenizer.bos_token_id
        begun = [sample.start == 1 and sample.ids[0] == bos and not sample.cut for sample in samples]
        if any(begun) and not all(begun):
            # one lost its whole prompt to such a token, and `_encode` began it anew: so must the others
            samples = [s if one else self._begin(s, bos) for s, one in zip(samples, begun, strict=True)]
        # places in the whole texts, since each may have lost another number of tokens at its beginning
        start = min(sample.start + sample.cut for sample in samples)
        places = [max(1, start - sample.cut) for sample in samples]
        return [
            sample if sample.start == place else scored_from(sample, place)
            for sample, place in zip(samples, places, strict=True)
        ]

    def _begin(self, sample: EncodedText, bos: int) -> EncodedText:
        ids = array("i", [bos, *sample.ids])[: self.max_length]
        if sample.cut or (self.truncation_mode == "keep_end" and len(ids) == len(sample.ids)):
            return replace(sample, cut=sample.cut + 1)  # what was put before it is the first to be cut
        return replace(sample, ids=ids, start=1, truncated=sample.truncated or len(ids) == len(sample.ids))

    def attention(self, model: nn.Module, asked: str | None = None) -> Attention:
        """Use FlexAttention from now on, if that is right for this model on its device; after `adapt`.

        Args:
            model: a causal language model on its device, under the autocast that it will run under.
            asked: attention that the user wants, which stands.
        """
        device = next(model.parameters()).device.type

        def trial() -> str | None:
            return try_flex(
                model, self.ability, lambda m, plan, ability: self._score(m, plan, (), ability).logp_NL
            )

        chosen = choose(model, self.ability, device, asked, trial)
        if asked is None and chosen.name is not None:
            inner: Any = causal_lm(model)
            inner.set_attn_implementation(chosen.name)
        return chosen

    def adapt(self, model: nn.Module, densest: Sharing = "shared") -> Ability:
        """Find out how densely this model can be scored, and plan for it from now on.

        Args:
            model: a causal language model on its device.
            densest: do not try more than this.
        """
        self.pad_token_id = padding_within(model, self.pad_token_id)
        self.ability = ability_of(
            model, lambda m, plan, ability: self._score(m, plan, (), ability).logp_NL, densest
        )
        return self.ability

    def plan(self, items: Sequence[EncodedText]) -> Plan:
        """Lay the items out in rows, as densely as the model allows."""
        ability = self.ability
        return plan_rows(
            items,
            self.pad_token_id,
            ability.sharing,
            ability.hidden,
            ability.longest,
            switch=ability.switch,
        )

    def score(self, model: nn.Module, plan: Plan, extras: Collection[str] = ()) -> ItemScores:
        """Log-probabilities of the planned tokens, in float32 (float64 for a float64 model), with gradients.

        Args:
            model: a causal language model of transformers, adapted or wrapped; without `adapt`, any that returns
                `.logits`.
            plan: from `plan`, on the model's device.
            extras: of "log_p2", "entropy" and "top1" those fields to compute too (no gradient), and "distribution", for which
                the model makes all its logits; others are ignored.
        """
        return self._score(model, plan, extras, self.ability)

    def inputs(self, model: nn.Module, plan: Plan, ability: Ability) -> dict[str, Any]:
        """What the model is called with."""
        inputs: dict[str, Any] = {"input_ids": plan.input_ids_RT, "use_cache": False}
        if plan.until_RT is not None:
            # a mask of ones keeps transformers from guessing at packed rows; `rows_of` makes the true one
            inputs |= {"attention_mask": torch.ones_like(plan.input_ids_RT), "position_ids": plan.position_RT}
        elif not ability.own_head:  # else padding was found not to matter
            inputs["attention_mask"] = plan.attention_mask_RT
        return inputs

    def reading(self, model: nn.Module, plan: Plan) -> AbstractContextManager[Any]:
        """Within it, the model reads the plan's rows."""
        stack = ExitStack()
        stack.enter_context(rows_of(plan))
        stack.enter_context(own_positions(model, plan.sequence_RT))
        return stack

    def _score(self, model: nn.Module, plan: Plan, extras: Collection[str], ability: Ability) -> ItemScores:
        inputs = self.inputs(model, plan, ability)
        names = [name for name in MEASURES if name in extras]
        balanced = torch.is_grad_enabled() and balances_experts(model)
        if balanced:
            inputs["output_router_logits"] = True
        aux_loss = distribution_KV = None
        with self.reading(model, plan):
            if ability.own_head and "distribution" not in extras:
                with scoring_forward(model, plan, names, ability):
                    logp_K, *found = model(**inputs)
                if balanced:
                    aux_loss = found.pop()
            else:
                outputs = model(**inputs)
                aux_loss = experts_loss(model, outputs.router_logits, plan) if balanced else None
                logits_KV = Finish()(outputs.logits[plan.row_K, plan.position_K])
                logp_K = token_logp(logits_KV, plan.target_K)
                found = list(measures(logits_KV, plan.target_K, names).values())
                if "distribution" in extras:
                    distribution_KV = logits_KV.log_softmax(-1)
        more = {f"{name}_N": per_item(x_K, plan).sum(-1) for name, x_K in zip(names, found, strict=True)}
        return ItemScores(
            logp_NL=per_item(logp_K, plan),
            length_N=plan.length_N,
            changed_NL=plan.changed_NL,
            distribution_KV=distribution_KV,
            auxiliary=None if aux_loss is None else balance_weight(model) * aux_loss,
            aux_loss=None if aux_loss is None else aux_loss.detach(),
            **more,
        )

    def settings(self) -> dict[str, Any]:
        """Nothing but model and tokens decides a score; where positions change with the length, how they are counted."""
        switch = self.ability.switch
        return {} if switch is None else {"positions": f"of each sequence alone, after {switch.after}"}

    def fitted(self, example: Example) -> Example:
        """The example as it is encoded: text is cut when it is."""
        return example

    def at(self, example: Encoded[EncodedText], epoch: int) -> Encoded[EncodedText]:
        """Text is scored alike in every epoch."""
        return example

    def renewed(self, example: Encoded[EncodedText]) -> bool:
        """No epoch has anything new."""
        return False

    def seen_by_reference(self, item: EncodedText) -> EncodedText:
        """The encoding under the reference's own condition, where it has one."""
        return item.reference or item

    def key(self, item: EncodedText) -> str:
        """Digest of the tokens that are read and of which of them are scored."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(item.start.to_bytes(4, "little"))
        digest.update(item.ids.tobytes())
        return digest.hexdigest()

    def family(self, item: EncodedText) -> bytes:
        """Its prompt, which can be read once for all its completions."""
        return item.ids[: item.start].tobytes()

    def width(self, item: EncodedText) -> int:
        """Tokens of an item, for batching by length."""
        return len(item.ids)


def scored_from(sample: EncodedText, start: int) -> EncodedText:
    """The same tokens, scored from an earlier place, under its own condition as under the reference's."""
    reference = sample.reference
    if reference is not None:
        reference = scored_from(reference, reference.start - (sample.start - start))
    return replace(sample, start=start, reference=reference)


def as_messages(sample: Any) -> list[Mapping[str, Any]]:
    """A completion as a list of messages."""
    return [sample] if isinstance(sample, Mapping) else list(sample)


def padding_within(model: Any, pad_token_id: int) -> int:
    """An id to pad with that the model has an embedding for; tokenizers may have been given one that it lacks."""
    inner: Any = causal_lm(model) or model
    embedding = getattr(inner, "get_input_embeddings", lambda: None)()
    rows = getattr(getattr(embedding, "weight", None), "shape", (None,))[0]
    return 0 if rows is not None and pad_token_id >= rows else pad_token_id


def per_item(value_K: Tensor, plan: Plan) -> Tensor:
    """(N, L) from a flat list of scored tokens; zeros after each item's end.

    Scattering into disjoint places and summing a row is deterministic on every device; adding with repeated
    indices is not.
    """
    out_NL = value_K.new_zeros((len(plan.length_N), plan.longest))
    return out_NL.index_put((plan.item_K, plan.offset_K), value_K)
