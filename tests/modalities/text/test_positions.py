"""Models with few positions: rows, samples and answers are fitted to them, or refused before anything expensive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

import prefopt
from conftest import ROWS
from generation.fake_server import FakeServer
from prefopt.comparisons import Item
from prefopt.evaluation.contest import check_side, read_prompts
from prefopt.generation.base import Settings
from prefopt.likelihoods.positions import positions_in
from prefopt.models.loading import load_model
from prefopt.models.positions import likelihood_for
from prefopt.worlds.text.model import train_tokenizer
from processes import assert_plain_error
from processes import prefopt as command
from stages.staged_rig import ROWS as STAGED_ROWS
from stages.staged_rig import longest, write
from stages.staged_rig import train as staged

CASE = Path(__file__).parents[2] / "data" / "cases" / "longer_than_positions.jsonl"
PLACES = 64
OPTIONS = {"max_steps": 2, "per_device_train_batch_size": 4, "sample_prompts": 3, "eval_size": 2}


@pytest.fixture(scope="module", params=["learned", "rotary"])
def short_model(request, tmp_path_factory):
    """64 positions and a vocabulary of the rows' words."""
    folder = tmp_path_factory.mktemp("short") / request.param
    rows = [json.loads(line) for line in CASE.read_text().splitlines()]
    words = [" ".join(row.values()) for row in [*rows, *ROWS]]
    tokenizer = train_tokenizer(iter(words * 3), vocab_size=250)
    shared = {
        "vocab_size": len(tokenizer),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "learned":
            config = transformers.GPT2Config(**shared, n_embd=32, n_layer=2, n_head=4, n_positions=PLACES)
            model = transformers.GPT2LMHeadModel(config)
        else:
            config = transformers.LlamaConfig(
                **shared, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=PLACES,
            )  # fmt: skip
            model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def long_rows(short_model):
    rows = [json.loads(line) for line in CASE.read_text().splitlines()]
    likelihood = likelihood_for(str(short_model), None)
    likelihood.max_length = None
    over = [
        max(
            len(likelihood.encode(Item({"prompt": r["prompt"]}, r[side])).ids)
            for side in ("chosen", "rejected")
        )
        > PLACES
        for r in rows
    ]
    return rows, over


@pytest.mark.parametrize("max_length", ["1024", "null"])
def test_rows_are_cut_to_the_positions_and_counted(short_model, own_cache, tmp_path, max_length):
    rows, over = long_rows(short_model)
    assert 0 < sum(over) < len(rows)
    out = tmp_path / "run"
    given = [f"{k}={v}" for k, v in {**OPTIONS, "eval_size": 0, "max_length": max_length}.items()]
    done = command(
        tmp_path, "train", "dpo", f"model={short_model}", f"data={CASE}", f"output_dir={out}", *given
    )
    assert done.returncode == 0, done.stderr
    assert "the model has 64 positions" in done.stderr
    assert (
        f"of {len(rows)} rows, {sum(over)} lost the end of a completion and 0 could not be used"
        in done.stderr
    )
    checked = command(tmp_path, "check", CASE, "--model", short_model)
    assert checked.returncode == 0, checked.stderr
    assert f"of {len(rows)} rows, {sum(over)} lost the end" in checked.stdout
    lengths = json.loads((out / "record" / "manifest.json").read_text())
    assert lengths["status"] == "finished"


def test_cut_rows_score_as_their_first_tokens(short_model):
    rows, over = long_rows(short_model)
    row = rows[over.index(True)]
    likelihood = likelihood_for(str(short_model), 1024)
    item = likelihood.encode(Item({"prompt": row["prompt"]}, row["chosen"]))
    assert (len(item.ids), item.truncated) == (PLACES, True)
    model = load_model(str(short_model), trainable=False).model
    logits = model(input_ids=torch.tensor([list(item.ids)])).logits.log_softmax(-1)[0]
    expected = sum(float(logits[t - 1, item.ids[t]]) for t in range(item.start, PLACES))
    assert float(likelihood.score(model, likelihood.plan([item])).logp_N) == pytest.approx(expected, abs=1e-3)


def test_prompts_that_fill_the_positions_are_dropped_and_listed(short_model, own_cache, rows_file, tmp_path):
    data = rows_file([*ROWS, {"prompt": "red fig " * 80, "chosen": " red", "rejected": " fig"}])
    result = prefopt.train("dpo", model=short_model, data=data, output_dir=str(tmp_path / "run"), **OPTIONS)
    (dropped,) = [json.loads(line) for line in (result.output_dir / "dropped.jsonl").read_text().splitlines()]
    assert (dropped["row"], dropped["reason"]) == (len(ROWS) + 1, "prompt_length")
    assert "fills the model's 64 positions" in dropped["detail"]


def test_where_no_row_fits_the_error_does_not_advise_a_larger_max_length(short_model, rows_file, tmp_path):
    data = rows_file([{"prompt": "red fig " * 80, "chosen": " red", "rejected": " fig"}])
    out = tmp_path / "run"
    done = command(tmp_path, "train", "dpo", f"model={short_model}", f"data={data}", f"output_dir={out}")
    assert_plain_error(done, "no row of", "fills the model's 64 positions")
    assert "larger max_length" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("asked", [64, 500])
def test_samples_stay_within_the_positions(short_model, own_cache, rows_file, tmp_path, capfd, asked):
    prompts = ["red fig " * 20, "Sort: red", "Sort: fig blue", "red " * 33]
    data = rows_file([{"prompt": p, "chosen": " red", "rejected": " fig"} for p in prompts])
    result = prefopt.train(
        "dpo", model=short_model, data=data, output_dir=str(tmp_path / "run"),
        **{**OPTIONS, "sample_max_new_tokens": asked, "sample_prompts": 4, "eval_size": 0},
    )  # fmt: skip
    samples = json.loads((result.output_dir / "record" / "samples.json").read_text())
    assert [s["prompt"] for s in samples["prompts"]] == prompts[1:3]
    told = capfd.readouterr().err
    assert f"they end after 32 of sample_max_new_tokens={asked}" in told
    assert "2 of 4 prompts leave room for 32 new tokens" in told


def test_evaluation_refuses_before_any_answer(short_model, tiny_model, rows_file, tmp_path):
    data = rows_file([{"prompt": "Sort: red fig"}, {"prompt": "red " * 60}])
    prompts = read_prompts(str(data))
    with pytest.raises(
        ValueError, match=r"1 of 2 prompts.*max_new_tokens=30 more exceed the 64 positions of"
    ):
        check_side(str(short_model), prompts, Settings(max_new_tokens=30))
    check_side(str(short_model), prompts[:1], Settings(max_new_tokens=30))
    out = tmp_path / "out"
    with FakeServer(reply=lambda body: "A", known="judge") as server:
        done = command(
            tmp_path, "evaluate", tiny_model, "--baseline", short_model, "--data", data, "--output", out,
            "--judge", f"openai:judge@{server.url}", "--max-new-tokens", 40,
        )  # fmt: skip
    assert_plain_error(
        done, "1 of 2 prompts, such as 'prompt-2' with ", f"the 64 positions of {short_model}: "
    )
    assert not out.exists()


def test_rounds_leave_out_what_has_no_room_for_an_answer(short_model, own_cache, tmp_path):
    rows = [*STAGED_ROWS, {"prompt": "red " * 58, "chosen": " red", "rejected": " fig"}]
    data = write(tmp_path / "rows.jsonl", rows)
    folder = tmp_path / "run"
    staged("online_dpo", short_model, data, folder, reward=longest, rounds=1, eval_size=0, seed_pairs=4)
    (dropped,) = [
        json.loads(line) for line in (folder / "stages/data/dropped.jsonl").read_text().splitlines()
    ]
    assert dropped["reason"] == "prompt_length"


def test_a_reference_with_fewer_positions_counts(short_model, tiny_model):
    assert likelihood_for(str(tiny_model), 1024).max_length == 128
    assert likelihood_for(str(tiny_model), 1024, str(short_model)).max_length == PLACES
    assert likelihood_for(str(tiny_model), 20, str(short_model)).max_length == 20


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (transformers.GPT2Config(n_positions=77), 77),
        (transformers.BloomConfig(), None),
        (transformers.XLNetConfig(), None),
        (transformers.MptConfig(max_seq_len=99), 99),
        (transformers.FalconConfig(alibi=True, max_position_embeddings=50), None),
        (transformers.LlamaConfig(max_position_embeddings=50), 50),
        (
            transformers.LlamaConfig(
                max_position_embeddings=50, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
            ),
            200,
        ),
        (
            transformers.LlamaConfig(
                max_position_embeddings=200,
                rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 50},
            ),
            200,
        ),
    ],
)  # fmt: skip
def test_positions_by_configuration(config, positions):
    assert positions_in(config) == positions
