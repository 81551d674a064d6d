"""The reference in its four forms, and the cache of its scores."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROWS
from prefopt.comparisons import Item
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.models.loading import LoraSettings, load_model, load_tokenizer
from prefopt.references import Reference, by_family, by_width
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


# -- what is lent as the reference -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with other weights."""
    folder = tmp_path_factory.mktemp("other")
    model = load_model(str(tiny_model)).model
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(folder)
    load_tokenizer(str(tiny_model)).save_pretrained(folder)
    return folder


def with_loader(source: Path, kind: str, load, lora: bool = False, same: bool = True) -> Reference:
    policy = load_model(str(source), lora=LoraSettings(r=2) if lora else None)
    likelihood = TokenLikelihood(load_tokenizer(str(source)))
    return Reference(kind, policy=policy, likelihood=likelihood, load=load, same_as_policy=same, device=CPU)


@pytest.mark.parametrize("lora", [False, True])
def test_live_is_one_frozen_copy(tiny_model, lora):
    loads = []

    def load() -> torch.nn.Module:
        loads.append(1)
        return load_model(str(tiny_model), trainable=False).model.train()

    live = with_loader(tiny_model, "live", load, lora)
    start = log_probs(live)
    with torch.no_grad():
        for p in live._policy.model.parameters():
            p.add_(0.05)
    assert torch.equal(log_probs(live), start)  # whether or not anybody said that the policy moved
    live.policy_moved()
    with live.model() as model:
        assert model is not live._policy.model
        assert not model.training
    assert torch.equal(log_probs(live), start)
    assert len(loads) == 1


def test_a_copy_is_loaded_once_the_policy_moved(tiny_model):
    reference = with_loader(
        tiny_model, "cached", lambda: load_model(str(tiny_model), trainable=False).model.train()
    )
    with reference.model() as model:
        assert model is reference._policy.model  # nothing is loaded while the policy will do
    reference.policy_moved()
    with reference.model() as model:
        assert model is not reference._policy.model
        assert not model.training


@pytest.mark.parametrize("kind", ["cached", "live"])
@pytest.mark.parametrize("lora", [False, True])
def test_another_model_as_reference(tiny_model, other_model, tmp_path, kind, lora):
    def load() -> torch.nn.Module:
        return load_model(str(other_model), trainable=False).model

    reference = with_loader(tiny_model, kind, load, lora, same=False)
    prepare(reference, tmp_path)
    expected = log_probs(make(other_model, "live"))
    assert (expected - log_probs(make(tiny_model, "live"))).abs().max() > 0.1
    torch.testing.assert_close(log_probs(reference), expected, rtol=0, atol=1e-5)


def test_none_gives_nothing(tiny_model, tmp_path):
    none = make(tiny_model, "none")
    assert prepare(none, tmp_path) == 0
    assert log_probs(none) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["cached", "live"])
def test_scores_in_the_precision_of_the_run(tiny_model, tmp_path, kind):
    bf16 = make(tiny_model, kind, precision="bf16")
    prepare(bf16, tmp_path)
    # in the order and company of the cache: other neighbours in a batch round otherwise, on some processors as much as bf16
    seen = {bf16.likelihood.key(item): item for item in items_of(bf16.likelihood)}
    items = [seen[key] for key in by_family(seen, bf16.likelihood)]
    batches = by_width(items, 64, bf16.likelihood.width) if kind == "cached" else [items]
    model, expected = load_model(str(tiny_model)).model, torch.zeros(0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in batches:
            scores = bf16.likelihood.score(model, bf16.likelihood.plan(batch))
            expected = torch.cat([expected, scores.logp_N])
    found, full = (
        reference.scores(items, bf16.likelihood.plan(items)).sum(-1)
        for reference in (bf16, make(tiny_model, "live"))
    )
    assert (found - expected).abs().max() < 0.1 * (found - full).abs().max()


@pytest.mark.parametrize("kind", ["cached", "live"])
def test_anchored_references(tiny_model, tmp_path, kind):
    """The reference scores the same completion after its own condition; items without one stay as they are."""
    reference = make(tiny_model, kind)
    likelihood = reference.likelihood
    texts = [("Sort: pear fig", "Sort: fig", " fig pear"), ("Count: red", None, " red one")]
    items, expected = [], []
    for prompt, anchor, completion in texts:
        other = None if anchor is None else {"prompt": anchor}
        items.append(likelihood.encode(Item({"prompt": prompt}, completion, reference_condition=other)))
        expected.append(likelihood.encode(Item({"prompt": anchor or prompt}, completion)))
    reference.prepare(items, batch_size=64, cache_root=tmp_path)
    model = load_model(str(tiny_model)).model
    with torch.no_grad():
        right = likelihood.score(model, likelihood.plan(expected)).logp_NL
        wrong = likelihood.score(model, likelihood.plan(items)).logp_NL
    found = reference.scores(items, likelihood.plan(items))
    torch.testing.assert_close(found, right, rtol=0, atol=1e-5)
    assert (found - wrong)[0].abs().max() > 1e-2


# -- the cache's key -----------------------------------------------------------------------------------------


def test_identity_names_all_that_a_score_depends_on(tiny_model, tmp_path):
    reference = make(tiny_model)
    prepare(reference, tmp_path)
    (path,) = tmp_path.rglob("identity.json")
    assert json.loads(path.read_text()) == {
        "weights": reference.fingerprint,
        "likelihood": f"TokenLikelihood {TokenLikelihood.version}",
        "settings": {},
        "dtype": "torch.float32",
        "precision": "no",
        "attention": "sdpa",
        "device": "cpu",
    }


def test_other_processes_are_waited_for_and_the_user_sees_progress(tiny_model, tmp_path):
    reference, seen = make(tiny_model), []
    items = items_of(reference.likelihood)

    def progress(batches: list, label: str) -> Iterator[list]:
        seen.append(label)
        return iter(batches)

    reference.prepare(
        items, batch_size=64, cache_root=tmp_path, wait=lambda: seen.append("waited"), progress=progress
    )
    assert seen == ["Reference scores", "waited"]


def test_scores_have_no_padding_in_the_cache(tiny_model, tmp_path):
    reference = make(tiny_model)
    prepare(reference, tmp_path)
    items = items_of(reference.likelihood)
    assert len({item.length for item in items}) > 1
    for item in items:
        assert len(reference._cache[reference.likelihood.key(item)]) == item.length
