"""The text world's model, samples and comparisons, on a much smaller model than the real one."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter

import pytest
import torch

from prefopt.worlds import get_world
from prefopt.worlds.text.task import LEXICON

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "pretrain_steps": 300,
    "pretrain_batch_size": 16,
    "pretrain_learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def world(cache_folder):
    return get_world("text", seed=3, **TINY)


@pytest.fixture(scope="module")
def loaded(world):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = world.model_dir()
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def weights_hash(folder) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


# -- model ---------------------------------------------------------------------------------------------------


def test_the_saved_model_is_a_plain_transformers_model(world, loaded):
    from prefopt.worlds.text.model import sample_completions

    model, tokenizer = loaded
    assert type(model).__name__ == "LlamaForCausalLM"
    assert len(tokenizer) == model.config.vocab_size <= 320
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    prompts = world.prompts(6)
    greedy = []
    for prompt in prompts:  # one at a time, without padding: the judge of the batched sampler
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        new = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        greedy.append([tokenizer.decode(new, skip_special_tokens=True)])
    assert {word for [text] in greedy for word in text.split()} & set(LEXICON)
    sampled = sample_completions(model, tokenizer, prompts, temperature=0, max_new_tokens=20)
    assert sampled == greedy


def test_it_learned_something(world, loaded):
    trained = world.expected_reward(*loaded, 60, 2)
    torch.manual_seed(0)
    fresh = type(loaded[0])(loaded[0].config)
    assert trained.low > world.expected_reward(fresh, loaded[1], 60, 2).high


def test_chat_template_round_trip(world, loaded):
    tokenizer = loaded[1]
    messages = [
        {"role": "user", "content": "Sort: pear fig apple"},
        {"role": "assistant", "content": "apple, fig, pear."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<s><|user|>Sort: pear fig apple<|assistant|>apple, fig, pear.</s>"
    encode = {"tokenize": True, "return_dict": True}
    whole = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, **encode)
    head = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, **encode)["input_ids"]
    ids = whole["input_ids"]
    assert ids == tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1  # tokenizing adds no second one
    assert ids[: len(head)] == head
    # the completion tokenized alone is the completion's tokens in the conversation
    alone = tokenizer(messages[1]["content"])["input_ids"]
    assert ids[len(head) :] == [*alone, tokenizer.eos_token_id]
    assert whole["assistant_masks"] == [0] * len(head) + [1] * (len(alone) + 1)
    assert tokenizer.decode(alone) == "apple, fig, pear."
    with pytest.raises(Exception, match="roles are user and assistant"):
        tokenizer.apply_chat_template([{"role": "system", "content": "be brief"}], tokenize=False)


def test_every_word_is_one_token_wherever_it_stands(loaded):
    tokenizer = loaded[1]
    for word in LEXICON:
        assert len(tokenizer(word)["input_ids"]) == 1
    assert tokenizer.unk_token_id not in tokenizer("Zebra #7 ~ {x}")["input_ids"]


def test_same_seed_same_weights_other_seed_other_weights(world, tmp_path, monkeypatch):
    first = weights_hash(world.model_dir())
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    torch.manual_seed(12345)  # the global state must not matter
    random.seed(5)
    state = torch.get_rng_state(), random.getstate()
    again = world.model_dir()
    assert tmp_path in again.parents
    assert weights_hash(again) == first
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    other = get_world("text", seed=4, **TINY | {"pretrain_steps": 2})
    assert weights_hash(other.model_dir()) != first


def test_any_setting_changes_the_place(world, cache_folder):
    from dataclasses import replace

    changes = {
        "seed": 9,
        "min_words": 2,
        "max_words": 4,
        "fault_rate": 0.5,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "pretrain_steps": 301,
        "pretrain_batch_size": 17,
        "pretrain_learning_rate": 1e-3,
    }
    places = {replace(world, **{name: value})._place("model") for name, value in changes.items()}
    assert len(places | {world._place("model")}) == len(changes) + 1
    assert set(changes) == set(world.__dataclass_fields__)


def test_a_damaged_model_is_rebuilt(cache_folder):
    world = get_world("text", seed=5, **TINY | {"pretrain_steps": 2})
    folder = world.model_dir()
    good = weights_hash(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert weights_hash(world.model_dir()) == good


def test_another_process_finds_the_model(world, cache_folder):
    world.model_dir()  # may be the first test of its worker
    code = (
        "import sys, prefopt.worlds\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy import'\n"
        f"print(prefopt.worlds.get_world('text', seed=3, **{TINY}).model_dir())\n"
        "assert 'transformers' not in sys.modules, 'pretrained again'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(world.model_dir())


# -- samples -------------------------------------------------------------------------------------------------


def test_candidates_are_scored_cached_and_reproducible(world, tmp_path, monkeypatch):
    found = world.candidates(20, per_prompt=5)
    assert [c.prompt for c in found] == world.prompts(20)
    for c in found:
        assert len(c.completions) == len(c.scores) == 5
        assert list(c.scores) == world.score_texts([c.prompt] * 5, c.completions)
    assert len({text for c in found for text in c.completions}) > 20
    assert world.candidates(20, per_prompt=5) == found
    file = next(f for f in _candidate_files() if len(f.read_text().splitlines()) == 20)
    lines = file.read_text().splitlines()
    assert json.loads(lines[0])["prompt"] == found[0].prompt
    file.write_text("\n".join(lines[:7]))  # half a file is not taken for the whole
    assert world.candidates(20, per_prompt=5) == found
    assert world.candidates(20, per_prompt=5, temperature=0.5) != found
    assert [c.prompt for c in world.candidates(5, 2, split="test")] == world.prompts(5, "test")


def _candidate_files():
    from prefopt.cache import cache_dir

    return cache_dir().rglob("candidates.jsonl")


def test_sampling_follows_the_models_own_distribution(world, loaded):
    """First tokens drawn at temperature 1 against the exact softmax: no hidden top-k, no padding effect."""
    from prefopt.worlds.text.model import prompt_text, sample_completions

    model, tokenizer = loaded
    prompts = ["Sort: pear fig apple bat bee", "Unique: fig fig"]  # of different length, so one is padded
    drawn = sample_completions(model, tokenizer, prompts, 4000, max_new_tokens=1, seed=1, batch_size=8000)
    for prompt, texts in zip(prompts, drawn, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(prompt_text(tokenizer, prompt), return_tensors="pt")).logits[0, -1]
        expected = Counter()
        for token, p in enumerate(logits.softmax(-1).tolist()):
            expected[tokenizer.decode([token], skip_special_tokens=True).strip()] += p
        counts = Counter(texts)
        distance = sum(abs(counts[text] / 4000 - p) for text, p in expected.items()) / 2
        # the mean total variation of 4000 draws is below sum sqrt(p / (2 pi n)); twice that is ample
        assert distance < 2 * sum((p / (2 * torch.pi * 4000)) ** 0.5 for p in expected.values())
        assert set(counts) <= set(expected)
        top_50 = {tokenizer.decode([t]).strip() for t in logits.topk(50).indices.tolist()}
        assert len(set(counts) - top_50) > 0


def test_expected_reward(world, loaded):
    model, tokenizer = loaded
    model.train()
    state = torch.get_rng_state()
    estimate = world.expected_reward(model, tokenizer, 40, 3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 <= estimate.low < estimate.mean < estimate.high <= 1
    assert world.expected_reward(model, tokenizer, 40, 3) == estimate
    assert world.expected_reward(model, tokenizer, 40, 3, seed=1) != estimate
    wide = world.expected_reward(model, tokenizer, 10, 3)
    assert wide.high - wide.low > estimate.high - estimate.low
    greedy = world.expected_reward(model, tokenizer, 40, 3, temperature=0)
    assert world.expected_reward(model, tokenizer, 40, 1, temperature=0, seed=1) == greedy
    with pytest.raises(ValueError, match="at least 2"):
        world.expected_reward(model, tokenizer, 1)
    with pytest.raises(ValueError, match="temperature"):
        world.expected_reward(model, tokenizer, 4, temperature=-1)


# -- comparisons ---------------------------------------------------------------------------------------------

N = 120


def sides(row):
    return row["chosen"][0]["content"], row["rejected"][0]["content"]


def test_rows_follow_rule_r1(world):
    rows = world.comparisons(N)
    by_prompt = {c.prompt: c for c in world.candidates(N)}
    assert rows == world.comparisons(N)
    for row in rows:
        assert row["prompt"][0]["role"] == "user"
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["source"] == "world:text/R1"
        prompt = row["prompt"][0]["content"]
        chosen, rejected = sides(row)
        assert chosen != rejected
        assert (row["score_chosen"], row["score_rejected"]) == (
            world.verify(prompt, chosen),
            world.verify(prompt, rejected),
        )
        scores = [
            s for t, s in zip(by_prompt[prompt].completions, by_prompt[prompt].scores, strict=True) if t
        ]
        if row["label"] == "win":
            assert row["score_chosen"] == max(scores) > min(scores) == row["score_rejected"]
        else:
            assert row["score_chosen"] >= row["score_rejected"]
    labels = Counter((row["prompt"][0]["content"], row["label"]) for row in rows)
    assert set(labels.values()) == {1}
    count = Counter(row["label"] for row in rows)
    assert count["win"] > 0.8 * N
    assert count["tie"] > 0.8 * N
    ties = [row for row in rows if row["label"] == "tie"]
    assert sum(row["score_chosen"] == row["score_rejected"] for row in ties) > 0.5 * len(ties)


def test_train_and_test_rows_share_no_prompt(world):
    prompts = [
        {r["prompt"][0]["content"] for r in world.comparisons(40, split)} for split in ("train", "test")
    ]
    assert not prompts[0] & prompts[1]


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.25, 1.0])
def test_label_noise_flips_its_share_of_the_wins_and_no_tie(world, noise):
    clean, noisy = world.comparisons(N), world.comparisons(N, label_noise=noise)
    wins = sum(row["label"] == "win" for row in clean)
    flipped = [a["id"] for a, b in zip(clean, noisy, strict=True) if a != b]
    assert len(flipped) == round(noise * wins)
    for a, b in zip(clean, noisy, strict=True):
        if a["id"] in flipped:
            assert a["label"] == b["label"] == "win"
            assert sides(a) == sides(b)[::-1]
            assert b["score_chosen"] < b["score_rejected"]


def test_label_noise_is_nested_and_seeded(world):
    def flipped(share, seed=0):
        return {
            r["id"]
            for r in world.comparisons(N, label_noise=share, seed=seed)
            if r["score_chosen"] < r["score_rejected"]
        }

    assert flipped(0.1) < flipped(0.3)
    assert flipped(0.3) == flipped(0.3)
    assert flipped(0.3) != flipped(0.3, seed=1)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_tie_share(world, share):
    every = [row["id"] for row in world.comparisons(N)]
    kept = world.comparisons(N, tie_share=share)
    ids = [row["id"] for row in kept]
    assert ids == [i for i in every if i in set(ids)]
    ties = sum(row["label"] == "tie" for row in kept)
    assert ties / len(kept) == pytest.approx(share, abs=0.01)
    total = Counter(i.split("/")[1] for i in every)
    assert ties == total["tie-1"] or len(kept) - ties == total["win-1"]  # one kind is kept whole


def test_shares_outside_the_unit_interval_are_refused(world):
    with pytest.raises(ValueError, match="label_noise is a share"):
        world.comparisons(3, label_noise=1.2)
    with pytest.raises(ValueError, match="tie_share is a share"):
        world.comparisons(3, tie_share=-0.1)


def test_rows_are_read_by_a_plain_json_round_trip(world):
    rows = world.comparisons(5)
    assert [json.loads(json.dumps(row)) for row in rows] == rows


# -- the real size ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_default_world_has_room_that_dpo_uses(tmp_path, monkeypatch):
    from prefopt import objectives
    from prefopt.worlds.text import model as text_model

    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    world = get_world("text")
    reference, tokenizer = text_model.load(world.model_dir())
    policy, _ = text_model.load(world.model_dir())
    before = world.expected_reward(reference, tokenizer)
    assert 0.4 < before.mean < 0.65

    def logps(model, texts):
        tokens = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        answer = (ids == tokenizer.convert_tokens_to_ids("<|assistant|>")).cumsum(-1)[:, :-1].bool()
        logp = model(**tokens).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        return (logp * answer * mask[:, 1:]).sum(-1)

    rows = world.comparisons(400, tie_share=0)
    order = random.Random(0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    dpo = objectives.get("dpo", beta=0.1)
    for _ in range(100):
        batch = order.sample(rows, 16)
        texts = [
            tokenizer.apply_chat_template(r["prompt"] + r[side], tokenize=False)
            for side in ("chosen", "rejected")
            for r in batch
        ]
        with torch.no_grad():
            fixed = logps(reference, texts)
        rho = logps(policy, texts) - fixed
        optimizer.zero_grad()
        dpo(rho_w=rho[:16], rho_l=rho[16:]).mean().backward()
        optimizer.step()
    after = world.expected_reward(policy, tokenizer)
    assert after.low > before.high + 0.1
