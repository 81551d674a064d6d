"""Runs of a model whose positions change with the length: rows on both sides of the switch in one batch."""

from __future__ import annotations

import json
import random

import pytest
import torch
import transformers

import prefopt
from prefopt.comparisons import Item
from prefopt.models.positions import likelihood_for
from prefopt.worlds.text.model import train_tokenizer

WORDS = ("red", "blue", "fig", "pear", "one", "two", "apple")
KINDS = {
    "longrope": {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 24,
        "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 4.0, 8.0, 16.0],
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"

    def text(n):
        return "".join(f" {rng.choice(WORDS)}" for _ in range(n))

    held_out = path.with_name("held_out.jsonl")
    lengths = [(3, 40), (30, 4), (4, 5), (50, 20), (8, 10), (22, 21), (2, 60), (12, 13), (35, 3), (6, 44)]
    rows = [{"prompt": "Say:", "chosen": text(a), "rejected": text(b)} for a, b in lengths]
    path.write_text("".join(json.dumps(row | {"prompt": "Count:"}) + "\n" for row in rows))
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(params=KINDS)
def model(request, tmp_path):
    tokenizer = train_tokenizer(iter([" ".join(("Say:", "Count:", *WORDS))] * 20), vocab_size=120)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": tokenizer.eos_token_id, "rope_parameters": KINDS[request.param],
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "longrope":
            config = transformers.Phi3Config(
                **sizes, max_position_embeddings=96, original_max_position_embeddings=24
            )
            made = transformers.Phi3ForCausalLM(config)
        else:
            made = transformers.LlamaForCausalLM(
                transformers.LlamaConfig(**sizes, max_position_embeddings=24)
            )
    made.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("layout", ["auto", "plain"])
def test_figures_are_those_of_rows_alone(model, data, own_cache, tmp_path, layout):
    found = {}
    for size in (1, 10):
        result = prefopt.train(
            "dpo", model=model, data=data, output_dir=str(tmp_path / f"run{size}"), max_steps=1, eval_size=0,
            eval_data=str(data.with_name("held_out.jsonl")), learning_rate=1e-12, per_device_train_batch_size=size, sample_prompts=4,
            per_device_eval_batch_size=size, batch_layout=layout, sample_max_new_tokens=12,
        )  # fmt: skip
        found[size] = {k: v for k, v in result.metrics.items() if k.startswith("eval_") and "time" not in k}
        assert result.metrics["eval_kl"] == pytest.approx(0, abs=1e-5)
        assert result.metrics["eval_rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert found[1] == pytest.approx(found[10], rel=1e-5, abs=1e-5)
    likelihood = likelihood_for(str(model), 1024)
    by_hand = {}
    for side in ("chosen", "rejected"):
        sums = []
        for row in map(json.loads, data.with_name("held_out.jsonl").read_text().splitlines()):
            item = likelihood.encode(Item({"prompt": row["prompt"]}, row[side]))
            fresh = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
            with torch.no_grad():
                logp = fresh(input_ids=torch.tensor([list(item.ids)])).logits.log_softmax(-1)[0]
            sums.append(sum(float(logp[t - 1, item.ids[t]]) for t in range(item.start, len(item.ids))))
        by_hand[side] = sum(sums) / len(sums)
        assert found[10][f"eval_logps/{side}"] == pytest.approx(by_hand[side], rel=1e-5)
