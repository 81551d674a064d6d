"""The reference: the model that log-ratios are taken against, and the cache of its scores.

    cached        scores computed once, kept on disk, shared by every beta, loss and seed of a sweep (the default)
    live          a frozen copy, built from the source weights, scored every step
    adapter_off   the policy itself with its adapters switched off (or its frozen starting adapter switched on)
    none          rho is the policy's own log-probability

A live one may move: TR-DPO (arXiv 2404.09656) mixes the policy into it every so many steps.

Whatever the kind, `Reference.model()` lends a model that scores as the reference, for what cannot be cached (KL on
fresh samples). The policy is never copied: a copy is always loaded from its source, which also works when the
policy is sharded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from prefopt.likelihoods.base import ItemScores, Likelihood
from prefopt.models.identity import fingerprint
from prefopt.models.mixing import Mixing, without_adapters
from prefopt.models.policy import Policy
from prefopt.shards import ShardCache

ReferenceKind = Literal["cached", "live", "adapter_off", "none"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
REFERENCE_BATCH = 8192  # summed width of a forward pass of the reference, in tokens for text


@dataclass(frozen=True)
class Sync:
    """When and how far the reference moves.

    Attributes:
        alpha: share of the policy that is mixed in, in (0, 1].
        steps: from one move to the next.
    """

    alpha: float
    steps: int


class Reference:
    """Scores of the reference for encoded items.

    Args:
        kind: see the module's docstring.
        policy: the loaded policy, before any step was taken.
        likelihood: shared with the policy.
        load: builds the reference from its source weights, frozen; called when no resident model can serve.
        same_as_policy: whether the policy, as passed, has the reference's weights; False for another model.
        device: where to score.
        precision: name of the autocast precision in use, part of the cache's key.
        switches: whether the policy's adapters, where it has some, can be switched off to give what training began from.
        sync: for a live reference that follows the policy.

    Raises:
        ValueError: the kind does not fit the policy.
    """

    def __init__(
        self,
        kind: ReferenceKind,
        *,
        policy: Policy,
        likelihood: Likelihood,
        load: Callable[[], nn.Module],
        same_as_policy: bool,
        device: torch.device,
        precision: str = "no",
        switches: bool = True,
        sync: Sync | None = None,
    ) -> None:
        self.kind, self.sync = kind, sync
        self.likelihood = likelihood
        self.device = device
        self.precision = precision
        self.fingerprint: str | None = None
        self._load = load
        self._policy = policy
        self._policy_is_reference = same_as_policy
        # switching adapters gives the reference, unless another model was named as reference
        self._adapters_suffice = same_as_policy and switches
        self._resident: nn.Module | None = None
        self._cache: ShardCache | None = None
        self._mixing: Mixing | None = None
        if sync is not None and kind != "live":
            raise ValueError(f"only a live reference can move, and this one is {kind}")
        if kind == "adapter_off" and policy.adapter is None:
            raise ValueError(
                "reference=adapter_off needs a policy with adapters: set use_peft=true, or use cached or live"
            )
        if kind == "live":
            self._resident = load().to(device).eval()
            if sync is not None:
                self._resident = without_adapters(self._resident)

    def policy_moved(self) -> None:
        """Tell that training has begun: the policy's full weights no longer are the reference's."""
        self._policy_is_reference = False

    def follow(self) -> None:
        """Make ready to move; the policy is prepared for its devices, and has not moved.

        Raises:
            ValueError: its weights cannot be mixed into the reference.
        """
        if self.sync is not None:
            assert self._resident is not None  # a live one
            self._mixing = Mixing(
                self._resident,
                self._policy.model,
                self._policy.adapter,
                self.sync.alpha,
                not self._adapters_suffice,
            )

    def stepped(self, step: int) -> None:
        """Told after every step of training, how many there were: the reference moves where it is time to."""
        if self._mixing is not None and self.sync is not None and step % self.sync.steps == 0:
            self._mixing.mix()

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs: the weights of a reference that moves; nothing of others."""
        return {} if self._mixing is None else self._mixing.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take `state` back."""
        if self._mixing is not None:
            self._mixing.load_state(state)

    @contextlib.contextmanager
    def model(self) -> Iterator[nn.Module]:
        """Lend a model that scores as the reference does now; do not keep it."""
        if self._resident is not None:
            yield self._resident
        else:
            with self.start() as model:
                yield model

    @contextlib.contextmanager
    def start(self) -> Iterator[nn.Module]:
        """Lend a model that scores as the reference did before training; do not keep it."""
        policy = self._policy
        if self._resident is not None and self.sync is None:
            yield self._resident
        elif policy.adapter is not None and self._adapters_suffice:
            with policy.as_reference():
                yield policy.model
        elif self._policy_is_reference and policy.adapter is None:
            yield policy.model
        else:
            model = self._load().to(self.device).eval()
            try:
                yield model
            finally:
                del model

    def prepare(
        self,
        items: Iterable[Any],
        *,
        batch_size: int,
        cache_root: Path | None = None,
        share: tuple[int, int] = (0, 1),
        wait: Callable[[], None] = lambda: None,
        progress: Callable[[Sequence[Any], str], Iterator[Any]] | None = None,
    ) -> int:
        """For the cached kind: score whatever the cache lacks. Returns how many items this process scored.

        Args:
            items: every encoded item of the run, training and evaluation.
            batch_size: summed width of one forward pass (padded tokens, for text).
            cache_root: folder of caches, the user's by default.
            share: (rank, processes); each process scores its part of what is missing.
            wait: barrier between processes.
            progress: wraps the list of batches, for a progress bar.
        """
        if self.kind != "cached":
            return 0
        likelihood = self.likelihood
        with self.model() as model:
            self.fingerprint = fingerprint(model)
            self._cache = ShardCache(
                "references",
                {
                    "weights": self.fingerprint,
                    "likelihood": f"{type(likelihood).__name__} {likelihood.version}",
                    "settings": likelihood.settings(),
                    "dtype": str(next(model.parameters()).dtype),
                    "precision": self.precision,
                    "attention": str(getattr(getattr(model, "config", None), "_attn_implementation", "")),
                    "device": self.device.type,
                },
                cache_root,
            )
            seen = {likelihood.key(item): item for item in map(likelihood.seen_by_reference, items)}
            order = by_family(seen, likelihood)

            def compute(batch: list[Any]) -> list[np.ndarray]:
                scores = self._score(model, likelihood.plan(batch).to(self.device))
                logp_NL = scores.logp_NL.float().cpu().numpy()
                lengths = scores.length_N.long().tolist()
                if not np.isfinite(logp_NL).all():
                    raise ValueError(
                        "the reference gives a score that is no finite number (NaN or infinite): look for NaN in its weights, or set "
                        "dtype=float32, bf16=false and fp16=false. Nothing of it was cached"
                    )
                return [row[:length].copy() for row, length in zip(logp_NL, lengths, strict=True)]

            return self._cache.fill(
                {k: seen[k] for k in order},
                compute,
                lambda todo: by_width(todo, batch_size, likelihood.width),
                share=share,
                wait=wait,
                progress=progress,
                label="Reference scores",
            )

    @torch.no_grad()
    def _score(self, model: nn.Module, plan: Any, extras: Collection[str] = ()) -> ItemScores:
        autocast = (
            contextlib.nullcontext()
            if self.precision == "no"
            else torch.autocast(self.device.type, dtype=AUTOCAST[self.precision])
        )
        with autocast:
            return self.likelihood.score(model, plan, extras)

    def scores(self, items: Sequence[Any], plan: Any) -> Tensor | None:
        """(N, L) scores by part on the device, zero after each item's end; None without a reference.

        Args:
            items: as the policy sees them.
            plan: the policy's plan of the same items, on the device; used again where the reference sees the same.
        """
        if self.kind == "none":
            return None
        seen = [self.likelihood.seen_by_reference(item) for item in items]
        if self._cache is None:
            if any(a is not b for a, b in zip(seen, items, strict=True)):
                plan = self.likelihood.plan(seen).to(self.device)
            with self.model() as model:
                return self._score(model, plan).logp_NL
        found = [self._cache[self.likelihood.key(item)] for item in seen]
        logp_NL = torch.zeros((len(items), max(map(len, found))))
        for n, values in enumerate(found):
            logp_NL[n, : len(values)] = torch.from_numpy(values.copy())
        return logp_NL.to(self.device, non_blocking=True)

    def distribution(self, items: Sequence[Any], plan: Any) -> Tensor:
        """(K, V) log-probabilities of all tokens at the plan's scored places, for divergences; nothing is cached.

        Raises:
            ValueError: the reference is not at hand, or sees other conditions.
        """
        if self.kind not in ("live", "adapter_off"):
            raise ValueError(
                f"a divergence from the reference needs its whole distribution at every token, which reference={self.kind} "
                "does not give: set reference=live, or adapter_off with adapters"
            )
        if any(self.likelihood.seen_by_reference(item) is not item for item in items):
            raise ValueError(
                "a divergence from the reference needs both models under one condition, but these items have another for "
                "the reference"
            )
        with self.model() as model, torch.no_grad():
            found = self._score(model, plan, {"distribution"}).distribution_KV
        assert found is not None
        return found


def by_family(seen: Mapping[str, Any], likelihood: Likelihood) -> list[str]:
    """Keys of items, the widest families first; what can be scored together cheaply stays together."""
    families: dict[Any, list[str]] = {}
    for key, item in seen.items():
        families.setdefault(likelihood.family(item), []).append(key)
    for keys in families.values():
        keys.sort(key=lambda k: (-likelihood.width(seen[k]), k))
    order = sorted(families.values(), key=lambda keys: (-likelihood.width(seen[keys[0]]), keys[0]))
    return [key for keys in order for key in keys]


def by_width(items: Sequence[Any], batch_size: int, width: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Cut a list, widest first or nearly so, into batches of at most `batch_size` padded places."""
    batch: list[Any] = []
    widest = 0
    for item in items:
        if batch and (len(batch) + 1) * max(widest, width(item)) > batch_size:
            yield batch
            batch, widest = [], 0
        batch.append(item)
        widest = max(widest, width(item))
    if batch:
        yield batch
