"""The reference: the frozen model that log-ratios are taken against, and the cache of its scores.

    cached        scores computed once, kept on disk, shared by every beta, loss and seed of a sweep (the default)
    live          a frozen copy, built from the source weights, scored every step
    adapter_off   the policy itself with its adapters switched off (or its frozen starting adapter switched on)
    none          rho is the policy's own log-probability

Whatever the kind, `Reference.model()` lends a model that scores as the reference, for what cannot be cached (KL on
fresh samples). The policy is never copied: a copy is always loaded from its source, which also works when the
policy is sharded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from prefopt.cache import cache_dir
from prefopt.likelihoods.base import ItemScores, Likelihood
from prefopt.models.identity import fingerprint
from prefopt.models.policy import Policy

ReferenceKind = Literal["cached", "live", "adapter_off", "none"]

SHARD_ITEMS = 1024  # an interrupted pass loses at most this many scores


class ScoreCache:
    """Scores of items, part by part (for text: per-token log-probabilities), on disk, one folder for each way of scoring.

    A folder holds safetensors shards, each written under a temporary name and renamed, so that several runs may
    add to it at once and an interrupted write leaves nothing half-done. A shard that cannot be read is ignored and
    its items are scored again.

    Args:
        identity: everything besides the item that a score depends on; hashed into the folder's name and stored
            beside the shards in `identity.json`.
        root: parent folder; the user's cache by default.
    """

    def __init__(self, identity: dict[str, Any], root: Path | None = None) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.folder = (root or cache_dir() / "references") / hashlib.blake2b(
            text.encode(), digest_size=16
        ).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "identity.json").exists():
            atomic_write(self.folder / "identity.json", (text + "\n").encode())
        self._scores: dict[str, np.ndarray] = {}
        self._read: set[str] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._scores)

    def __contains__(self, key: str) -> bool:
        return key in self._scores

    def __getitem__(self, key: str) -> np.ndarray:
        return self._scores[key]

    def refresh(self) -> None:
        """Read shards that appeared since the last time (written by other processes)."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            try:
                shard = load_file(path)
                keys, lengths, logp = shard["keys"], shard["lengths"], shard["logp"]
            except (SafetensorError, OSError, KeyError):
                continue  # damaged: its items will be scored again
            ends = np.cumsum(lengths)
            for key, end, length in zip(keys, ends, lengths, strict=True):
                self._scores[key.tobytes().hex()] = logp[end - length : end]

    def add(self, scores: dict[str, np.ndarray]) -> None:
        """Write one shard of float32 vectors by item key."""
        from safetensors.numpy import save

        if not scores:
            return
        payload = save(
            {
                "keys": np.stack([np.frombuffer(bytes.fromhex(key), dtype=np.uint8) for key in scores]),
                "lengths": np.array([len(v) for v in scores.values()], dtype=np.int64),
                "logp": np.concatenate(list(scores.values())).astype(np.float32),
            }
        )
        name = f"{hashlib.blake2b(payload, digest_size=12).hexdigest()}.safetensors"
        try:
            atomic_write(self.folder / name, payload)
        except OSError as error:
            raise OSError(
                f"the reference cache at {self.folder} could not be written ({error.strerror or error}). Free some "
                "space, point PREFOPT_CACHE at another folder, or set reference=live"
            ) from error
        self._read.add(name)
        self._scores.update(scores)


def atomic_write(path: Path, payload: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops in the middle."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(payload)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    ) -> None:
        self.kind = kind
        self.likelihood = likelihood
        self.device = device
        self.precision = precision
        self.fingerprint: str | None = None
        self._load = load
        self._policy = policy
        self._policy_is_reference = same_as_policy
        # switching adapters gives the reference, unless another model was named as reference
        self._adapters_suffice = same_as_policy
        self._resident: nn.Module | None = None
        self._cache: ScoreCache | None = None
        if kind == "adapter_off" and policy.adapter is None:
            raise ValueError(
                "reference=adapter_off needs a policy with adapters: set use_peft=true, or use cached or live"
            )
        if kind == "live":
            self._resident = load().to(device).eval()

    def policy_moved(self) -> None:
        """Tell that training has begun: the policy's full weights no longer are the reference's."""
        self._policy_is_reference = False

    @contextlib.contextmanager
    def model(self) -> Iterator[nn.Module]:
        """Lend a model that scores as the reference; do not keep it."""
        policy = self._policy
        if self._resident is not None:
            yield self._resident
        elif self.kind != "live" and policy.adapter is not None and self._adapters_suffice:
            with policy.as_reference():
                yield policy.model
        elif self._policy_is_reference:
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
            self._cache = ScoreCache(
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
            wanted = {likelihood.key(seen): seen for seen in map(likelihood.seen_by_reference, items)}
            rank, processes = share
            order = sorted(wanted, key=lambda k: (-likelihood.width(wanted[k]), k))
            # shares are of all items: what is missing differs between processes, since some may have written already
            mine = [k for k in order[rank::processes] if k not in self._cache]
            batches = list(by_width([wanted[k] for k in mine], batch_size, likelihood.width))
            pending: dict[str, np.ndarray] = {}
            for batch in progress(batches, "Reference scores") if progress and batches else batches:
                scores = self._score(model, likelihood.plan(batch).to(self.device))
                logp_NL = scores.logp_NL.float().cpu().numpy()
                lengths = [1] * len(batch) if scores.length_N is None else scores.length_N.tolist()
                pending |= {
                    likelihood.key(item): logp_NL[n, : lengths[n]].copy() for n, item in enumerate(batch)
                }
                if len(pending) >= SHARD_ITEMS:
                    self._cache.add(pending)
                    pending = {}
            self._cache.add(pending)
        wait()
        self._cache.refresh()
        if lost := [k for k in wanted if k not in self._cache]:
            raise RuntimeError(
                f"{len(lost)} reference scores are missing from {self._cache.folder} after scoring them"
            )
        return len(mine)

    @torch.no_grad()
    def _score(self, model: nn.Module, plan: Any) -> ItemScores:
        autocast = (
            torch.autocast(self.device.type, dtype=torch.bfloat16)
            if self.precision == "bf16"
            else contextlib.nullcontext()
        )
        with autocast:
            return self.likelihood.score(model, plan)

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
            logp_NL[n, : len(values)] = torch.from_numpy(values)
        return logp_NL.to(self.device, non_blocking=True)


def by_width(items: Sequence[Any], batch_size: int, width: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Cut a list, widest first, into batches of at most `batch_size` padded places."""
    batch: list[Any] = []
    for item in items:
        if batch and (len(batch) + 1) * width(batch[0]) > batch_size:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
