"""What a model can do: share prefixes, read packed rows, leave its head to us. Found by trying, not by name.

A few made-up rows are scored one by one and then in each denser layout. A layout is used if

- every score is that of the row alone, within the rounding of the model's numbers, also where long rows have other
  positions than short ones, and
- changing the tokens of one sequence leaves the scores of the others exactly as they were. (A leak cannot hide behind
  rounding; recurrent layers fail here.)

The rows are longer than a window up to `LONGEST_WINDOW`, so that a window which counts places instead of positions
shows itself.
"""

from __future__ import annotations

import contextlib
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.attention import can_mask
from prefopt.likelihoods.layout import UNLIMITED, Sharing
from prefopt.likelihoods.plan import EncodedText, Plan, plan_rows
from prefopt.likelihoods.positions import positions_in
from prefopt.likelihoods.rotary import Switch, switch_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONGEST_WINDOW = 512
WINDOWS = ("sliding_window", "window_size", "attention_chunk_size", "local_window_size")
DECODERS = ("language_model", "text_model")
"""Where the trunk of a model that also reads images keeps its language model."""
ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
QUERIES = ("q_proj", "q_a_proj", "q_b_proj")
OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense")
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Per token, in nats: what rounding may do to a log-probability when a row is computed in another shape. Many models
compute parts in float32 whatever their weights."""


@dataclass(frozen=True, slots=True)
class Ability:
    """What was found.

    Attributes:
        sharing: densest layout whose scores are right.
        own_head: whether `head.head_logp` gives the model's own log-probabilities.
        own_mlp: whether the last layer's feed-forward part may read scored places only.
        own_queries: whether its queries, its attention and the projection of what that gives may, too.
        hidden: width of the model.
        longest: places that a row may have (the positions the model was made for).
        switch: where positions change with the length of a row; None where they do not.
        reasons: sentences on what does not work; empty if everything does.
    """

    sharing: Sharing = "plain"
    own_head: bool = False
    own_mlp: bool = False
    own_queries: bool = False
    hidden: int = 1024
    longest: int = UNLIMITED
    switch: Switch | None = None
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = {
            "shared": "prompts are shared and short rows packed",
            "packed": "short rows are packed",
            "plain": "one padded row an item",
        }[self.sharing]
        head = "the head reads scored places only" if self.own_head else "the head reads every place"
        return "; ".join([f"{rows}, {head}", *self.reasons])


def causal_lm(model: nn.Module) -> PreTrainedModel | None:
    """The model of transformers inside adapters and other wrappers; None if there is none."""
    from transformers import PreTrainedModel

    return next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)


def trunk_of(inner: PreTrainedModel) -> nn.Module | None:
    """The part of a causal language model that gives hidden states; None where it cannot be told."""
    trunk: nn.Module = inner.base_model
    return trunk if trunk is not inner else getattr(inner, "model", None)


def layers_of(trunk: nn.Module) -> list[nn.Module]:
    """The layers, by the names that models of transformers give them; none where they cannot be told."""
    decoder = next((part for name in DECODERS if (part := getattr(trunk, name, None)) is not None), trunk)
    lists = [getattr(decoder, name, None) for name in ("layers", "h")]
    return next((list(layers) for layers in lists if isinstance(layers, nn.ModuleList)), [])


def last_mlp(trunk: nn.Module) -> nn.Module | None:
    """The feed-forward part of the last layer."""
    return next((getattr(layer, "mlp", None) for layer in layers_of(trunk)[-1:]), None)


def last_attention(trunk: nn.Module) -> tuple[nn.Module | None, list[nn.Module]]:
    """The attention of the last layer, and its projections to queries (where keys have another) and of its output."""
    for name, module in (named for layer in layers_of(trunk)[-1:] for named in layer.named_modules()):
        if name.rpartition(".")[-1] in ATTENTIONS:
            children = dict(module.named_children())
            outputs = [children[k] for k in OUTPUTS if k in children]
            if outputs:
                return module, [*(children[k] for k in QUERIES if k in children), *outputs]
    return None, []


Score = Callable[[nn.Module, Plan, Ability], Tensor]
Lay = Callable[..., Plan]


def ability_of(
    model: nn.Module,
    score: Score,
    densest: Sharing = "shared",
    more: Sequence[Sequence[EncodedText]] = (),
    lay: Lay = plan_rows,
) -> Ability:
    """Try what the model can do.

    Args:
        model: a causal language model on its device; left as it was.
        score: (model, plan, ability to use) -> (N, L) log-probabilities.
        densest: do not try more than this.
        more: further items to try, of each batch those that share a prompt; the first and the last have several tokens.
        lay: makes plans, called as `plan_rows`.
    """
    inner = causal_lm(model)
    if inner is None:
        return Ability(
            reasons=("it is not a model of transformers, so every item is scored in a row of its own",)
        )
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), experts_left_alone(inner):
            return _try_out(model, inner, score, densest, more, lay)
    finally:
        model.train(training)


@contextlib.contextmanager
def experts_left_alone(model: PreTrainedModel) -> Iterator[None]:
    """Within it, no balance of experts is asked for.

    A model that is to balance them reads every place; what its parts do of some places only is then never tried, and would
    fail in the reference, which balances nothing.
    """
    text: Any = model.config.get_text_config()
    asked = getattr(text, "output_router_logits", False)
    if not asked:
        yield
        return
    text.output_router_logits = False
    try:
        yield
    finally:
        text.output_router_logits = asked


@torch.no_grad()
def check_looks_back(model: nn.Module, kind: int | None = None) -> None:
    """Refuse a model whose predictions depend on what follows: a token's score would be read off the token itself.

    Args:
        model: a language model of transformers, on its device.
        kind: of the tokens of a completion, for models that are told it of each token.

    Raises:
        ValueError: it looks ahead.
    """
    inner: Any = causal_lm(model)
    if inner is None:
        return
    top = min(getattr(inner.config.get_text_config(), "vocab_size", None) or 256, 2**15) - 1
    device = next(model.parameters()).device
    ids_2T = torch.tensor([[min(k, top) for k in (3, 7, 5, 9, 4, 8, last)] for last in (6, 2)], device=device)
    told = {} if kind is None else {"token_type_ids": torch.full_like(ids_2T, kind)}
    training = model.training
    model.eval()
    try:
        logits_2TV = inner(input_ids=ids_2T, use_cache=False, **told).logits.double()
    except (TypeError, ValueError, RuntimeError, IndexError):
        return  # what cannot be asked like this fails where it is asked in earnest, for a reason of its own
    finally:
        model.train(training)
    before_2TV = logits_2TV[:, :-1]
    # at every place, by far more than rounding: experts may round otherwise in other company
    change = float((before_2TV[0] - before_2TV[1]).abs().amax(-1).min() / before_2TV.std())
    tolerance = tolerance_of(model)
    if change > (1e-4 if tolerance <= TOLERANCE[torch.float32] else tolerance / 5):
        raise ValueError(
            f"{type(inner).__name__} predicts tokens from those that follow, too, so that a completion's probability "
            "means nothing: needed a causal language model (of this class, one trained and saved with is_decoder=true)"
        )


def computes_in(model: nn.Module) -> set[torch.dtype]:
    """Dtypes that a model computes in, autocast aside; layers with quantized weights say theirs."""
    stored = {p.dtype for p in model.parameters() if p.is_floating_point()}
    said = {getattr(module, "compute_dtype", None) for module in model.modules()}
    return stored | {kind for kind in said if isinstance(kind, torch.dtype)}


def tolerance_of(model: nn.Module) -> float:
    """What rounding may do to a model's log-probabilities, per token: that of the coarsest numbers it computes in."""
    return max(TOLERANCE.get(kind, 0.1) for kind in computes_in(model))


def _try_out(
    model: nn.Module,
    inner: PreTrainedModel,
    score: Score,
    densest: Sharing,
    more: Sequence[Sequence[EncodedText]],
    lay: Lay,
) -> Ability:
    config: Any = inner.config.get_text_config()
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    tolerance, on_cpu = tolerance_of(model), parameter.device.type == "cpu"
    found = Ability(
        hidden=getattr(config, "hidden_size", None) or 1024,
        longest=positions_in(config) or UNLIMITED,
        switch=switch_of(model),
    )

    def run(items: Sequence[EncodedText], ability: Ability, apart: bool | None = None) -> Tensor:
        # so wide that every join pays
        plan = lay(items, 0, ability.sharing, 2**30, apart=apart, switch=ability.switch)
        return score(model, plan.to(parameter.device), ability)

    def failure(ability: Ability) -> str | None:
        # these rows are too short for attention by branches to pay, but others will not be
        ways: tuple[bool | None, ...] = (None, True) if on_cpu else (None,)
        found = (_failure(ability, way, *batch) for batch in batches for way in ways)
        return next((why for why in found if why is not None), None)

    def _failure(
        ability: Ability, apart: bool | None, items: Sequence[EncodedText], exact: Tensor
    ) -> str | None:
        try:
            scores = run(items, ability, apart)
        except (
            AttributeError,
            IndexError,
            KeyError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            return f"it fails ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]})"
        off = float((scores - exact).abs().max())
        if not off <= tolerance:
            return f"scores differ from those of single rows by up to {off:.2g} nats a token"
        if ability.sharing != "plain":
            for n in (0, len(items) - 1):  # a completion that lies between others, and a row's other group
                changed = run(with_another(items, n), ability, apart)
                same = [k for k in range(len(items)) if k != n]
                if not torch.equal(changed[same], scores[same]):
                    return "one sequence changes the scores of another"
        return None

    batches = []
    for items in (probes(config, switch=found.switch), *more):
        singles = [run([item], found)[0] for item in items]  # what fails here fails for a reason of its own
        batches.append((items, torch.nn.utils.rnn.pad_sequence(singles, batch_first=True)))
    reasons: list[str] = []
    why = None
    for own_mlp, own_queries in ((True, True), (True, False), (False, True), (False, False)):
        tried = replace(found, own_head=True, own_mlp=own_mlp, own_queries=own_queries)
        if (why := failure(tried)) is None:
            found = tried
            break
    else:
        reasons.append(f"the head reads every token: with the head applied by prefopt, {why}")
    choices: list[tuple[Sharing, str]] = [
        ("shared", "prompts are not shared"),
        ("packed", "rows are not packed"),
    ]
    if densest == "plain":
        choices = []
    elif not can_mask(inner):
        reasons.append(
            f"prompts are not shared: {config._attn_implementation} takes no masks of blocks "
            "(sdpa and flex_attention do)"
        )
        choices = []
    for sharing, loss in choices[densest == "packed" :]:
        why = failure(replace(found, sharing=sharing))
        if why is None:
            found = replace(found, sharing=sharing)
            break
        reasons.append(f"{loss}: {why}")
    return replace(found, reasons=tuple(reasons))


def probes(config: Any, least: int = 32, switch: Switch | None = None) -> list[EncodedText]:
    """A long completion and two alike short ones after one prompt, and a short item of its own.

    The long completion comes between the prompt and the short ones when the prompt is shared.

    Args:
        config: of the text model.
        least: tokens of the long completion, if the model has as many places.
        switch: of the model; the long completion lies beyond it, if that is not far.
    """
    places = positions_in(config) or 2**20
    windows = [
        w for name in WINDOWS if isinstance(w := getattr(config, name, None), int) and w <= LONGEST_WINDOW
    ]
    if switch is not None and switch.after <= LONGEST_WINDOW:
        windows.append(switch.after)
    reach = min(
        max(max(windows, default=0) + 32, least), places - 24
    )  # the others fit beside it in a row of its length
    rng = random.Random(0)
    top = min(getattr(config, "vocab_size", None) or 256, 2**15) - 1

    def draw(count: int, low: int) -> array[int]:
        return array("i", [rng.randint(low, low + top // 4) for _ in range(count)])

    # what comes first in the sorted order of a group is laid out first
    prompt, long, short = draw(6, top // 2), draw(reach, 1), draw(7, 3 * top // 4)
    other = draw(5, top // 4) + draw(4, 1)
    return [
        EncodedText(prompt + long, 6),
        EncodedText(prompt + short, 6),
        EncodedText(prompt + short[:4] + draw(3, top // 4), 6),
        EncodedText(other, 5),
    ]


def with_another(items: Sequence[EncodedText], n: int) -> list[EncodedText]:
    """The same items, but for the completion of one: its order is turned round."""
    item = items[n]
    tail = array("i", reversed(item.ids[item.start : -1]))
    changed = replace(item, ids=item.ids[: item.start] + tail + item.ids[-1:])
    return [*items[:n], changed, *items[n + 1 :]]
