"""ComPO's two stages: the split, what each of them trains on and moves, and going on after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import save_tiny_model
from prefopt.config import ConfigError, read_yaml
from prefopt.training.loop import Loop
from stages.staged_rig import ORACLE, ROWS, rows, start_and_kill, train, weights, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def straight(data, tiny_model, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train("compo", tiny_model, data, folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: Path, after: Path) -> set[str]:
    a, b = tensors(before), tensors(after)
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


def logp_by_hand(folder: Path, row: dict, side: str) -> float:
    """log pi(response | prompt), without any of prefopt."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(row["prompt"] + row[side] + tokenizer.eos_token, return_tensors="pt")["input_ids"]
    first = len(tokenizer(row["prompt"])["input_ids"])
    with torch.no_grad():
        logp_TV = model(ids).logits[0].double().log_softmax(-1)[first - 1 : -1]
    return float(logp_TV.gather(-1, ids[0, first:, None]).sum())


def column(folder: Path, name: str) -> list[float]:
    return [line[name] for line in rows(folder / "metrics.jsonl") if line.get(name) is not None]


def test_split_is_by_the_margin_under_the_start(straight, tiny_model):
    data = straight / "stages/data"
    clean, noisy = rows(data / "clean.jsonl"), rows(data / "noisy.jsonl")
    held_out = rows(data / "held_out.jsonl")
    assert len(clean) + len(noisy) + len(held_out) == len(ROWS)
    assert clean
    assert noisy
    for part, is_noisy in ((clean, False), (noisy, True)):
        for row in part:
            margin = logp_by_hand(tiny_model, row, "chosen") - logp_by_hand(tiny_model, row, "rejected")
            assert row["ref_margin"] == pytest.approx(margin, abs=1e-4)
            assert (abs(margin) <= ORACLE["split_margin"]) == is_noisy
    told = json.loads((data / "split.json").read_text())
    assert (told["clean"], told["noisy"], told["noisy_found"]) == (len(clean), len(noisy), len(noisy))
    tokens = [logp_tokens(tiny_model, row) for row in clean]
    assert told["clean_mean_tokens"] == pytest.approx(sum(tokens) / len(tokens))


def logp_tokens(folder: Path, row: dict) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    first = len(tokenizer(row["prompt"])["input_ids"])
    sides = (row["prompt"] + row[side] + tokenizer.eos_token for side in ("chosen", "rejected"))
    return sum(len(tokenizer(text)["input_ids"]) - first for text in sides) / 2


def test_the_second_stage_moves_the_head_and_nothing_else(straight, tiny_model):
    first, second = straight / "stages/clean/run", straight / "stages/noisy/run"
    assert len(changed(tiny_model, first / "model")) > 10
    assert changed(first / "model", second / "model") == {"lm_head.weight"}
    assert weights(straight) == weights(second)
    noisy = rows(straight / "stages/data/noisy.jsonl")
    assert len(column(second, "compo/success_rate")) == len(noisy), "one pass, a pair an iteration"
    assert all(0 <= rate <= 1 for rate in column(second, "compo/success_rate"))
    assert 0 < sum(column(second, "compo/stepped")) <= len(noisy)
    assert column(second, "eval_displacement")
    # what a step says of its pair is what the weights say, as far as later steps leave it
    assert len(column(second, "compo/delta_logp_chosen")) == sum(column(second, "compo/stepped"))


def test_page_says_what_the_stages_were(straight):
    page = (straight / "report.html").read_text()
    for stage in ("clean", "noisy"):
        assert f'href="stages/{stage}/run/report.html"' in page
    assert "doubtful" in page
    second = (straight / "stages/noisy/run/report.html").read_text()
    assert "Moves that helped" in second
    assert "not finite" not in second, "a gradient that there is not is no trouble"
    card = (straight / "README.md").read_text()
    assert "stages/clean" not in card
    assert f'folder = "{straight.name}/model"' in card
    model = AutoModelForCausalLM.from_pretrained(straight / "model")
    tokenizer = AutoTokenizer.from_pretrained(straight / "model")
    assert model.generate(**tokenizer("Sort: red", return_tensors="pt"), max_new_tokens=3).shape[1] > 4


def test_a_step_does_to_its_pair_what_it_reports(tiny_model, own_cache, tmp_path):
    data = write(tmp_path / "one.jsonl", ROWS[:1])
    train(
        "compo",
        tiny_model,
        data,
        tmp_path / "run",
        stage="oracle",
        eval_size=0,
        gate=0.0,
        perturbations=200,
        **ALONE,
    )
    (chosen,), (rejected,) = (
        column(tmp_path / "run", f"compo/delta_logp_{s}") for s in ("chosen", "rejected")
    )
    after = tmp_path / "run" / "model"
    for side, told in (("chosen", chosen), ("rejected", rejected)):
        found = logp_by_hand(after, ROWS[0], side) - logp_by_hand(tiny_model, ROWS[0], side)
        assert told == pytest.approx(found, abs=1e-4)
    (norm,) = column(tmp_path / "run", "compo/update_norm")
    moved = tensors(after)["lm_head.weight"] - tensors(tiny_model)["lm_head.weight"]
    assert norm == pytest.approx(float(moved.norm()), rel=1e-4)
    share = float((moved != 0).float().mean())
    assert share == pytest.approx(0.5, abs=0.01)
    # gamma * p long at most, the rest having been dropped
    assert norm <= 0.5 * column(tmp_path / "run", "compo/success_rate")[0]


# keys of the split belong to the stage before
ALONE = {"split_margin": 3.0}


def test_the_oracle_alone_is_the_second_stage(straight, data, tmp_path, own_cache):
    alone = tmp_path / "alone"
    stages = straight / "stages"
    train(
        "compo", stages / "clean/run/model", stages / "data/noisy.jsonl", alone, stage="oracle",
        eval_data=str(stages / "data/held_out.jsonl"), eval_size=0, **ALONE,
    )  # fmt: skip
    assert weights(alone) == weights(straight)
    # as many rows as the whole method would use
    few = train(
        "compo", stages / "clean/run/model", data, tmp_path / "few", stage="oracle", noisy_pairs=2, eval_size=0, **ALONE
    )  # fmt: skip
    assert few.history[-1]["step"] == 2


@pytest.mark.parametrize(("margin", "missing", "there"), [(0.0, "noisy", "clean"), (1e9, "clean", "noisy")])
def test_a_stage_without_pairs_is_left_out(margin, missing, there, tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    train("compo", tiny_model, data, folder, split_margin=margin)
    assert not (folder / "stages" / missing).exists()
    assert weights(folder) == weights(folder / "stages" / there / "run")
    if there == "noisy":
        assert changed(tiny_model, folder / "model") == {"lm_head.weight"}
    page = (folder / "report.html").read_text()
    assert f"stages/{there}/run/report.html" in page


def test_a_shut_gate_moves_nothing(tiny_model, data, own_cache, tmp_path):
    train("compo", tiny_model, data, tmp_path / "run", stage="oracle", gate=0.99, **ALONE)
    assert changed(tiny_model, tmp_path / "run" / "model") == set()
    assert set(column(tmp_path / "run", "compo/stepped")) == {0.0}


def test_simpo_first(tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    train("compo", tiny_model, data, folder, first="simpo", beta=2.0, gamma_beta_ratio=0.8)
    manifest = json.loads((folder / "stages/clean/run/record/manifest.json").read_text())
    assert manifest["method"] == "simpo"
    ratios = [
        read_yaml(folder / f"{part}config.yaml").get("gamma_beta_ratio")
        for part in ("", "stages/clean/run/", "stages/noisy/run/")
    ]
    assert ratios == [0.8, 0.8, None]
    with pytest.raises(ConfigError, match="unknown key 'gamma_beta_ratio'"):
        train("compo", tiny_model, data, tmp_path / "dpo", gamma_beta_ratio=0.8)
    assert changed(folder / "stages/clean/run/model", folder / "model") == {"lm_head.weight"}


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_a_tied_head_gets_weights_of_its_own(architecture, data, own_cache, tmp_path):
    tied = save_tiny_model(tmp_path / "tied", architecture)
    if architecture == "qwen2":
        loaded = AutoModelForCausalLM.from_pretrained(tied, tie_word_embeddings=True)
        loaded.config.tie_word_embeddings = True
        loaded.tie_weights()
        loaded.save_pretrained(tied)
    assert AutoModelForCausalLM.from_pretrained(tied).config.tie_word_embeddings
    held_out = write(tmp_path / "held_out.jsonl", ROWS[:3])
    train("compo", tied, data, tmp_path / "run", stage="oracle", eval_data=str(held_out), **ALONE)

    saved = tmp_path / "run" / "model"
    assert json.loads((saved / "config.json").read_text())["tie_word_embeddings"] is False
    before, after = (AutoModelForCausalLM.from_pretrained(x) for x in (tied, saved))
    assert after.get_output_embeddings().weight is not after.get_input_embeddings().weight
    own, theirs = dict(before.named_parameters()), dict(after.named_parameters())
    assert {n for n in own if not torch.equal(own[n], theirs[n])} == set()
    assert not torch.equal(before.get_output_embeddings().weight, after.get_output_embeddings().weight)
    # the reloaded model says what the trained one said at the end
    assert column(tmp_path / "run", "train_rows_rewards/margins")[-1] == pytest.approx(
        margins_by_hand(tied, saved, ROWS[:3]), abs=1e-4
    )


def margins_by_hand(before: Path, after: Path, held_out: list[dict]) -> float:
    found = []
    for row in held_out:
        moved = [logp_by_hand(after, row, s) - logp_by_hand(before, row, s) for s in ("chosen", "rejected")]
        found.append(0.1 * (moved[0] - moved[1]))
    return sum(found) / len(found)


def test_fast_path_is_the_plain_one(tiny_model, data, own_cache, tmp_path):
    options = {"stage": "oracle", "fast_sampling": False, **ALONE}
    train("compo", tiny_model, data, tmp_path / "fast", **options)
    train("compo", tiny_model, data, tmp_path / "plain", perturbed=r"^lm_head\.weight$", **options)
    for name in ("compo/success_rate", "compo/stepped"):
        assert column(tmp_path / "fast", name) == pytest.approx(column(tmp_path / "plain", name), abs=0.03)
    start = tensors(tiny_model)["lm_head.weight"]
    fast, plain = (tensors(tmp_path / n / "model")["lm_head.weight"] - start for n in ("fast", "plain"))
    assert torch.nn.functional.cosine_similarity(fast.flatten(), plain.flatten(), dim=0) > 0.98


def test_other_weights_can_be_perturbed(tiny_model, data, own_cache, tmp_path):
    options = {"stage": "oracle", "perturbed": r"layers\.1\.mlp", "gate": 0.0, **ALONE}
    train("compo", tiny_model, data, tmp_path / "run", **options)
    assert changed(tiny_model, tmp_path / "run/model") == {
        f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }


def test_killed_between_iterations_and_resumed_is_bit_identical(
    straight, tiny_model, data, own_cache, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    checkpoint = folder / "stages/noisy/run/checkpoints/step-00000002"
    start_and_kill("compo", tiny_model, data, folder, checkpoint.exists)
    assert not (folder / "model").exists()
    steps, update = [], Loop.update

    def counted(loop, examples):
        steps.append(loop.step)
        update(loop, examples)

    monkeypatch.setattr(Loop, "update", counted)
    train("compo", tiny_model, data, folder, resume=True)
    assert min(steps, default=2) >= 2, "no iteration before the checkpoint is made again"
    assert weights(folder) == weights(straight)
    again, once = (column(f / "stages/noisy/run", "compo/success_rate") for f in (folder, straight))
    assert again == once


def test_another_setting_is_refused_on_resume(straight, tiny_model, data):
    with pytest.raises(ConfigError, match="begun with other gate"):
        train("compo", tiny_model, data, straight, resume=True, gate=0.3)


REFUSED = {
    "two thresholds": ({"lambda_g": 1e-4, "clip_sigma": 2.0}, "needed exactly one of lambda_g"),
    "share and threshold": ({"lambda_g": 1e-4, "keep_fraction": 0.5}, "needed exactly one of lambda_g"),
    "no threshold": ({"keep_fraction": None}, "needed exactly one of lambda_g"),
    "two radii": ({"radius": 1e-3}, "radius: and radius_relative"),
    "no expression": ({"perturbed": "("}, "is no regular expression"),
    "bfloat16": ({"dtype": "bfloat16"}, "use dtype=float32"),
    "adapters": ({"use_peft": True}, "leave out use_peft"),
    "gate": ({"gate": 1.0}, "gate"),
    "rounds": ({"rounds": 2}, "rounds: for rounds, which compo has none of"),
    "images": ({"resolution": 64}, "resolution: for image models"),
}  # fmt: skip


@pytest.mark.parametrize("stage", ["all", "oracle"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_trained(case, stage, tiny_model, data, tmp_path, monkeypatch):
    options, message = REFUSED[case]
    own = ALONE if stage == "oracle" else {}
    monkeypatch.setattr("prefopt.training.loop.Loop.fit", None)
    with pytest.raises(ConfigError, match=message):
        train("compo", tiny_model, data, tmp_path / "run", stage=stage, **own, **options)
    assert stage == "oracle" or not (tmp_path / "run").exists()


def test_names_that_no_parameter_has(tiny_model, data, tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr("prefopt.training.loop.Loop.fit", None)
    with pytest.raises(
        ConfigError, match="no parameter is named like perturbed=nothing; there are, for example"
    ):
        train("compo", tiny_model, data, tmp_path / "run", perturbed="nothing")


def test_the_second_stage_alone_refuses_keys_of_the_split(tiny_model, data, tmp_path):
    with pytest.raises(ConfigError, match="first: for the stage before"):
        train("compo", tiny_model, data, tmp_path / "run", stage="oracle", first="simpo", **ALONE)


def test_rows_that_cannot_be_used_are_told(tiny_model, tmp_path, own_cache):
    lines = [*ROWS, {"prompt": "Sort: red", "chosen": " red", "rejected": " red"}]
    folder = tmp_path / "run"
    result = train("compo", tiny_model, write(tmp_path / "rows.jsonl", lines), folder, noisy_pairs=1)
    assert [row["reason"] for row in rows(folder / "stages/data/dropped.jsonl")] == ["identical_sides"]
    assert rows(folder / "dropped.jsonl") == rows(folder / "stages/data/dropped.jsonl")
    assert json.loads((folder / "record/data.json").read_text())["dropped"] == {"identical_sides": 1}
    assert "left out; stages/data/dropped.jsonl" in result.report.read_text()
    assert len(rows(folder / "stages/data/noisy.jsonl")) == 1


def test_moves_are_tried_in_full_precision_under_bf16(tiny_model, own_cache, tmp_path, monkeypatch):
    """A move changes log-probabilities by less than bf16 keeps: under autocast, rounding would be the oracle."""
    from prefopt.modalities.text import oracle as text_oracle

    asked: list[bool] = []

    def step(*given, **options):
        asked.append(torch.is_autocast_enabled("cpu"))
        return text_oracle_step(*given, **options)

    text_oracle_step = text_oracle.oracle_step
    monkeypatch.setattr(text_oracle, "oracle_step", step)
    data = write(tmp_path / "rows.jsonl", ROWS)
    train("compo", tiny_model, data, tmp_path / "run", stage="oracle", split_margin=3.0, bf16=True)
    assert asked
    assert not any(asked)
