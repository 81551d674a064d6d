"""A forecast of the memory that training a language model needs.

Counted beside weights and optimizer (`machine/memory.py`): what two kinds of passes need, a training step (gradients,
activations, logits) and a pass without gradients (reference scores, evaluation). Gradients and logits follow from shapes;
activations are counted for a Llama-like layer, see `Sizes.kept`. `benchmarks/memory_forecast.py` measures how far the peak
of real runs is from it.

On a CPU also: what the C library cannot use between the blocks of a step, and the copy of the reference that scores samples.

Not counted: caches of generation, extra terms that an objective asks for (WPO's log_p2), sharding over devices.

Legend: R rows, T row length, V vocabulary, K scored tokens of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from prefopt.likelihoods.capability import causal_lm, last_mlp, trunk_of
from prefopt.likelihoods.head import KEPT, PIECE
from prefopt.machine.allocator import LARGEST
from prefopt.machine.memory import LOADED_LATER, listed, mapped_bytes, on_gpu, standing, trained_bytes

FLOAT32 = 4  # bytes
# what glibc cannot use between the blocks that a forward pass keeps: shares of activations, and of what adapted
# projections give (their own output, the adapter's, and it scaled, die as soon as they are summed); measured
HOLES, HOLES_OF_ADAPTERS = 0.2, 1.9


def forecast(
    model: nn.Module,
    *,
    optim: str,
    rows: int,
    length: int,
    reference_resident: bool,
    gradient_checkpointing: bool,
    autocast_bf16: bool,
    scored: int | None = None,
    forward_tokens: int = 0,
    own_head: bool = False,
    samples_reference: bool = False,
) -> list[dict[str, Any]]:
    """Bytes by part at the moment of the largest need, largest batch assumed.

    Args:
        model: the policy, on its device.
        optim: optimizer name.
        rows: padded rows of the largest micro-batch.
        length: its row length in tokens.
        reference_resident: whether a frozen copy stays in memory; taken to be there already.
        gradient_checkpointing: keeps one hidden state a layer instead of all activations.
        autocast_bf16: activations in two bytes.
        scored: scored tokens of the micro-batch; default: all of its places.
        forward_tokens: padded tokens of the largest pass without gradients; 0 for none.
        own_head: logits are made a piece at a time (`likelihoods.head`).
        samples_reference: whether a copy of the reference is loaded to score samples.

    Returns:
        Parts with `part` (its name), `bytes`, and `held`: whether it is in memory already.
    """
    parts, held = standing(model, optim, reference_resident)
    weights, trained = parts["weights"], trained_bytes(model)
    training, forward = {"gradients": trained}, dict[str, int]()
    if sizes := Sizes.of(model, autocast_bf16):
        share = 1.0 if scored is None else min(1.0, scored / (rows * length))
        frozen = trained < weights / 2
        if autocast_bf16 and sizes.weight_bytes == FLOAT32:
            training["bf16 copies of weights"] = weights // 2
        training["activations"] = sizes.activations(rows, length, gradient_checkpointing, frozen)
        kind = "cuda" if on_gpu(model) else "cpu"
        training["logits"] = (
            sizes.logits_in_pieces(kind, round(rows * length * share))
            if own_head
            else sizes.logits(rows * length, share)
        )
        forward["activations"] = forward_tokens * sizes.passing
        forward["logits"] = (
            sizes.logits_in_pieces(kind, round(forward_tokens * share), keep=False)
            if own_head
            else sizes.logits(forward_tokens, share)
        )
    training["second gradient of the embedding"] = tied_bytes(model)
    sampling = weights if samples_reference else 0
    if on_gpu(model):
        phases = (training, forward, {"reference for samples": sampling})
        larger: dict[str, int] = max(phases, key=lambda phase: sum(phase.values()))
        parts |= larger
    else:
        # the C library seldom gives freed pieces back, so what different moments need adds up; only blocks that are
        # large enough for mappings of their own make room
        parts |= {name: max(size, forward.get(name, 0)) for name, size in training.items()}
        mapped = training["second gradient of the embedding"] + mapped_bytes(model)
        parts["reference for samples"] = max(0, sampling - mapped)
        if training.get("logits", 0) > 3 * LARGEST:  # in pieces that are given back before the end
            parts["loaded later"] = max(0, LOADED_LATER - training["logits"])
        if sizes:
            layers = 1 if gradient_checkpointing else sizes.layers
            holes = HOLES * training["activations"]
            holes += HOLES_OF_ADAPTERS * rows * length * sizes.adapted * layers * sizes.product_bytes
            parts["holes between blocks"] = int(holes)
    return listed(parts, held)


def tied_bytes(model: nn.Module) -> int:
    """Bytes of a trained embedding that is the output projection too: two gradients meet in it."""
    inner: Any = causal_lm(model)
    if inner is None or inner.get_output_embeddings() is None:
        return 0
    embedding, head = inner.get_input_embeddings().weight, inner.get_output_embeddings().weight
    return embedding.numel() * embedding.element_size() if embedding is head and head.requires_grad else 0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a token leaves in memory, from a configuration of transformers.

    Attributes:
        hidden: width of the residual stream.
        inner: width inside the feed-forward part.
        attended: width of all queries (heads times their dimension).
        normed: width of queries and keys where these have norms of their own, else 0.
        rows_of_scores: rows of T numbers that attention keeps for a token: the mask, or weights a head if not fused.
        layers: their number.
        vocabulary: V.
        weight_bytes: of one weight.
        product_bytes: of one number that a matrix product gives.
        inputs: numbers of a token that adapters of the feed-forward part keep, in a layer whose weights are frozen.
        adapted: numbers of a token that adapted projections of a layer give.
    """

    hidden: int
    inner: int
    attended: int
    normed: int
    rows_of_scores: int
    layers: int
    vocabulary: int
    weight_bytes: int
    product_bytes: int
    inputs: int = 0
    adapted: int = 0

    @classmethod
    def of(cls, model: nn.Module, autocast_bf16: bool) -> Sizes | None:
        """Read off the model; None where its configuration names no sizes."""
        config: Any = getattr(model, "config", None)
        if hasattr(
            config, "get_text_config"
        ):  # of a model that reads images too; those of its tower are not counted
            config = config.get_text_config()
        hidden, layers = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
        if not (hidden and layers):
            return None
        heads = getattr(config, "num_attention_heads", None) or 1
        shared = getattr(config, "num_key_value_heads", None) or heads
        head = getattr(config, "head_dim", None) or hidden // heads
        weight_bytes = next(p.element_size() for p in model.parameters() if p.is_floating_point())
        inputs, adapted = adapters(model, layers)
        return cls(
            hidden=hidden,
            inner=getattr(config, "intermediate_size", None) or 4 * hidden,
            attended=heads * head,
            normed=(heads + shared) * head
            if any(n.endswith("q_norm") for n, _ in model.named_modules())
            else 0,
            rows_of_scores=heads if getattr(config, "_attn_implementation", None) == "eager" else 1,
            layers=layers,
            vocabulary=getattr(config, "vocab_size", None) or 0,
            weight_bytes=weight_bytes,
            product_bytes=2 if autocast_bf16 else weight_bytes,
            inputs=inputs,
            adapted=adapted,
        )

    def kept(self, length: int, frozen: bool) -> int:
        """Bytes of a token in one layer that autograd keeps.

        Two norms keep what comes in and what goes out, before and after their weight. Attention keeps queries, keys,
        values, their mixture, and a row of the mask or of weights. The feed-forward part keeps gate, its activation,
        the other factor and the product. Norms count in float32. Under autocast every product keeps a bf16 copy of
        its input. Frozen weights do not ask for their inputs, adapters do.
        """
        h, b = self.hidden, self.product_bytes
        if frozen:
            wide, narrow, inner = 2, 1 if b == FLOAT32 else 2, 3
        elif self.weight_bytes < FLOAT32:
            wide, narrow, inner = 2, 4, 4
        else:
            wide, narrow, inner = 4, 2 if b >= FLOAT32 else 5, 4
        numbers = narrow * h + 4 * self.attended + inner * self.inner + self.rows_of_scores * length
        numbers += self.inputs if frozen else 0
        return (
            wide * h * max(FLOAT32, self.weight_bytes)
            + numbers * b
            + self.normed * (FLOAT32 if frozen else FLOAT32 + b)
        )

    def activations(self, rows: int, length: int, checkpointing: bool, frozen: bool) -> int:
        """Bytes that a forward pass keeps for the backward pass, logits aside."""
        one = self.kept(length, frozen)
        stream = self.hidden * max(
            self.weight_bytes, FLOAT32 if self.product_bytes < self.weight_bytes else 0
        )
        around = 3 * self.hidden * FLOAT32  # embedding and last norm
        # with checkpointing, the backward pass makes one layer's activations again
        layers = self.layers * stream + one if checkpointing else self.layers * one
        return rows * length * (layers + around)

    @property
    def passing(self) -> int:
        """Bytes of a token while it passes one layer without gradients."""
        return (6 * self.hidden + 3 * self.inner) * max(self.product_bytes, self.weight_bytes)

    def logits(self, tokens: int, share: float) -> int:
        """Bytes of the logits of all tokens, of the scored ones gathered in float32, and of their log-softmax."""
        b = self.product_bytes
        gathered = b if b == FLOAT32 else b + FLOAT32
        return int(tokens * self.vocabulary * (b + share * (gathered + FLOAT32)))

    def logits_in_pieces(self, kind: str, tokens: int, keep: bool = True) -> int:
        """Bytes of a piece of logits and of what its gradient is made with, and of all tokens' logits where kept."""
        whole = tokens * self.vocabulary * FLOAT32
        return 3 * min(PIECE[kind], whole) + (whole if keep and whole <= KEPT[kind] else 0)


def adapters(model: nn.Module, layers: int) -> tuple[int, int]:
    """Widths that adapters of the last layer's feed-forward part read, each once, and those that a layer's give."""
    inner: Any = causal_lm(model)
    trunk = None if inner is None else trunk_of(inner)
    mlp = None if trunk is None else last_mlp(trunk)
    read: set[int] = {m.in_features for m in adapted_in(mlp)}
    return sum(read), sum(m.out_features for m in adapted_in(model)) // layers


def adapted_in(module: nn.Module | None) -> list[Any]:
    """The projections with a trained low-rank adapter."""
    return [
        m
        for m in ([] if module is None else module.modules())
        if isinstance(pairs := getattr(m, "lora_A", None), nn.ModuleDict)
        and hasattr(m, "in_features")
        and any(p.requires_grad for p in pairs.parameters())
    ]
