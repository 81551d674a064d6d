"""The reference in its four forms, and the cache of its scores."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROWS
from prefopt.comparisons import Item
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.models.loading import LoraSettings, load_model, load_tokenizer
from prefopt.references import Reference, by_width
from prefopt.shards import ShardCache

CPU = torch.device("cpu")


def items_of(likelihood: TokenLikelihood) -> list:
    return [
        likelihood.encode(Item({"prompt": r["prompt"]}, r[s])) for r in ROWS for s in ("chosen", "rejected")
    ]


def make(
    source: Path, kind: str = "cached", dtype: str = "float32", lora: bool = False, **options
) -> Reference:
    policy = load_model(str(source), dtype=dtype, lora=LoraSettings(r=2) if lora else None)
    return Reference(
        kind, policy=policy, likelihood=TokenLikelihood(load_tokenizer(str(source))), same_as_policy=True,
        load=lambda: load_model(str(source), dtype=dtype, trainable=False).model, device=CPU, **options,
    )  # fmt: skip


def prepare(reference: Reference, root: Path) -> int:
    return reference.prepare(items_of(reference.likelihood), batch_size=64, cache_root=root)


def log_probs(reference: Reference) -> torch.Tensor:
    items = items_of(reference.likelihood)
    return reference.scores(items, reference.likelihood.plan(items))


def test_second_run_scores_nothing(tiny_model, tmp_path):
    first = make(tiny_model)
    different = len({item.ids.tobytes() for item in items_of(first.likelihood)})
    assert prepare(first, tmp_path) == different
    second = make(tiny_model)
    assert prepare(second, tmp_path) == 0
    assert torch.equal(log_probs(first), log_probs(second))


def test_cached_equals_live(tiny_model, tmp_path):
    cached, live = make(tiny_model), make(tiny_model, "live")
    prepare(cached, tmp_path)
    torch.testing.assert_close(log_probs(cached), log_probs(live), rtol=0, atol=1e-5)


def test_key_changes_with_weights_dtype_and_precision(tiny_model, tmp_path):
    prepare(make(tiny_model), tmp_path)
    assert prepare(make(tiny_model, dtype="float64"), tmp_path) > 0
    assert prepare(make(tiny_model, precision="bf16"), tmp_path) > 0
    moved = make(tiny_model)
    with torch.no_grad():
        next(moved._policy.model.parameters())[0, 0] += 1e-3
    assert prepare(moved, tmp_path) > 0
    assert len(list((tmp_path / "references").iterdir())) == 4
    assert prepare(make(tiny_model), tmp_path) == 0


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damaged_shard_is_scored_again(tiny_model, tmp_path, damage):
    reference = make(tiny_model)
    n = prepare(reference, tmp_path)
    expected = log_probs(reference)
    (shard,) = tmp_path.glob("*/*/*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(
        {"cut": whole[: len(whole) // 2], "garbage": b"\xff" * len(whole), "empty": b""}[damage]
    )
    again = make(tiny_model)
    assert prepare(again, tmp_path) == n
    assert torch.equal(log_probs(again), expected)
    assert prepare(make(tiny_model), tmp_path) == 0  # and the folder is whole again


def test_adapter_off_is_the_base(tiny_model, tmp_path):
    live, off = make(tiny_model, "live"), make(tiny_model, "adapter_off", lora=True)
    with torch.no_grad():
        for name, p in off._policy.model.named_parameters():
            if "lora" in name:
                p.normal_()
    off.policy_moved()
    items = items_of(off.likelihood)
    trained = off.likelihood.score(off._policy.model, off.likelihood.plan(items)).logp_NL
    assert (trained - log_probs(live)).abs().max() > 0.1
    torch.testing.assert_close(log_probs(off), log_probs(live), rtol=0, atol=1e-5)
    again = off.likelihood.score(off._policy.model, off.likelihood.plan(items)).logp_NL
    assert torch.equal(trained, again)  # the adapters are on again


def test_adapter_off_needs_adapters(tiny_model):
    with pytest.raises(ValueError, match="use_peft=true"):
        make(tiny_model, "adapter_off")


def test_lora_and_full_runs_share_a_cache(tiny_model, tmp_path):
    prepare(make(tiny_model), tmp_path)
    assert prepare(make(tiny_model, lora=True), tmp_path) == 0


def test_a_moved_policy_is_not_the_reference(tiny_model, tmp_path):
    expected = make(tiny_model)
    prepare(expected, tmp_path)
    moved = make(tiny_model)
    with torch.no_grad():
        for p in moved._policy.model.parameters():
            p.add_(0.05)
    moved.policy_moved()
    assert prepare(moved, tmp_path) == 0
    assert torch.equal(log_probs(moved), log_probs(expected))


def write_some(root: str, worker: int) -> None:
    cache = ShardCache("references", {"a": 1}, Path(root))
    for k in range(20):
        cache.add({f"{worker:016x}{k:016x}": np.full(k + 1, worker, np.float32)})
        cache.add({f"{99:016x}{k:016x}": np.full(3, 7.0, np.float32)})  # the same from everyone


def test_concurrent_writers(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_some, args=(str(tmp_path), w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    cache = ShardCache("references", {"a": 1}, tmp_path)
    assert len(cache) == 80
    assert cache[f"{2:016x}{5:016x}"].tolist() == [2.0] * 6
    assert not list(cache.folder.glob(".*"))


def test_processes_that_open_the_cache_at_different_times(tiny_model, tmp_path):
    """The second process sees what the first has written already, and must still score all of its own share."""
    first, second = make(tiny_model), make(tiny_model)
    items = items_of(first.likelihood)
    with pytest.raises(RuntimeError, match="missing"):  # nobody has scored the other half yet
        first.prepare(items, batch_size=64, cache_root=tmp_path, share=(0, 2))
    second.prepare(items, batch_size=64, cache_root=tmp_path, share=(1, 2))
    assert prepare(make(tiny_model), tmp_path) == 0


def test_batches_keep_to_their_size(tiny_model):
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)))
    items = sorted(items_of(likelihood), key=lambda item: -len(item.ids))
    batches = list(by_width(items, 24, lambda item: len(item.ids)))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) * len(batch[0].ids) <= 24 for batch in batches)
