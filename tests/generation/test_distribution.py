"""A checkpoint's generation configuration changes nothing of what is drawn, and is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import prefopt
from conftest import ROWS
from generation.fake_server import FakeServer
from generation.loud import loud
from prefopt.evaluation.contest import Prompted, answers
from prefopt.generation import LocalGenerator, Request, Settings
from prefopt.generation.local import continuations
from prefopt.models.loading import LoraSettings, load_model, load_tokenizer
from prefopt.worlds.text.model import sample_completions
from stages.staged_rig import ROWS as STAGED_ROWS
from stages.staged_rig import train, write


@pytest.fixture(scope="module")
def folders(tiny_model, tmp_path_factory):
    return tiny_model, loud(tiny_model, tmp_path_factory.mktemp("loud") / "model")


def lora(folder):
    torch.manual_seed(1)
    model = load_model(str(folder), lora=LoraSettings(r=4)).model
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module", params=["whole", "adapter"])
def models(request, folders):
    make = lora if request.param == "adapter" else lambda f: load_model(str(f), trainable=False).model
    return [make(f) for f in folders]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_every_way_of_sampling_draws_the_same(models, folders, temperature):
    tokenizer = load_tokenizer(str(folders[0]))
    settings = Settings(max_new_tokens=12, temperature=temperature, top_p=0.9, seed=3)
    requests = [Request(f"r{k}", row["prompt"], n=3) for k, row in enumerate(ROWS)]
    found = []
    for model in models:
        before = model.generation_config.to_dict()
        drawn = [r for batch in LocalGenerator(model, tokenizer).generate(requests, settings) for r in batch]
        stream = LocalGenerator(model, tokenizer, counted=False)
        whole = Settings(max_new_tokens=12, temperature=temperature, seed=1)
        samples = [r for batch in stream.generate(requests, whole) for r in batch]
        world = sample_completions(
            model, tokenizer, [row["prompt"] for row in ROWS], 2, temperature=temperature, max_new_tokens=12
        )
        found.append((drawn, samples, world))
        assert model.generation_config.to_dict() == before
    assert found[0] == found[1]


@pytest.mark.parametrize("own_noise", [True, False])
def test_a_loud_checkpoint_is_drawn_from_its_softmax(folders, own_noise):
    """Two tokens in a row, over the whole vocabulary, within five standard errors; nothing of it is forbidden."""
    model, tokenizer = load_model(str(folders[1]), trainable=False).model, load_tokenizer(str(folders[1]))
    n = 6000
    prompt = tokenizer("Sort: pear")["input_ids"]
    if own_noise:
        generator = LocalGenerator(model, tokenizer, batch_size=n)
        counts = torch.zeros(len(tokenizer))
        generator._text = lambda request, tokens: " ".join(map(str, tokens))
        for batch in generator.generate([Request("a", "Sort: pear", n=n)], Settings(1, 1.0)):
            for response in batch:
                counts[int(response.text)] += 1
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            drawn = continuations(
                model, [prompt] * n, 0, tokenizer.eos_token_id, max_new_tokens=1, temperature=1.0
            )
        counts = torch.bincount(torch.tensor([ids[0] for ids, _ in drawn]), minlength=len(tokenizer)).float()
    p_V = model(input_ids=torch.tensor([prompt])).logits[0, -1].float().softmax(-1).detach()
    error_V = (p_V * (1 - p_V) / n).sqrt()
    assert ((counts / n - p_V).abs() < 5 * error_V + 1e-6).all()
    assert counts.count_nonzero() > 100  # random weights spread over the vocabulary


def test_all_ends_of_the_generation_configuration_end_an_answer(tiny_model, tmp_path):
    several = loud(tiny_model, tmp_path / "model", eos_token_id=[2, 17, 18, 19, 20])
    model, tokenizer = load_model(str(several), trainable=False).model, load_tokenizer(str(several))
    prompt = tokenizer("Sort: pear")["input_ids"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = continuations(
            model, [prompt] * 400, 0, tokenizer.eos_token_id, max_new_tokens=30, temperature=1.0
        )
    ends = {tokenizer.eos_token_id, 2, 17, 18, 19, 20}
    assert {ids[-1] for ids, ended in drawn if ended} >= {17, 18, 19, 20}
    for ids, ended in drawn:
        assert not ends & set(ids[:-1])
        assert ended == (ids[-1] in ends)


def test_a_run_measures_the_same_kl_and_saves_what_it_was_given(folders, rows_file, own_cache, tmp_path):
    data, found = rows_file(ROWS), []
    for number, folder in enumerate(folders):
        result = prefopt.train(
            "dpo", model=folder, data=data, output_dir=str(tmp_path / f"run{number}"), max_steps=2, eval_size=2,
            learning_rate=1e-2, per_device_train_batch_size=2, sample_prompts=8, sample_max_new_tokens=12,
            warmup_ratio=0,
        )  # fmt: skip
        found.append({k: v for k, v in result.metrics.items() if k == "eval_kl" or "sample" in k})
        assert asked_by(result.output_dir / "model") == asked_by(folder)
    assert found[0] == found[1]
    assert abs(found[0]["eval_kl"]) > 1e-4


def asked_by(folder):
    values = json.loads((folder / "generation_config.json").read_text())
    values.pop("_from_model_config", None)
    values.pop("a_key_of_the_next_version", None)  # which this version of transformers does not carry along
    return values


def test_rounds_with_a_server_leave_every_models_own_configuration(tiny_model, own_cache, tmp_path):
    pytest.importorskip("openai", reason="talking to servers needs the extra `serving`")
    source = loud(tiny_model, tmp_path / "loud")
    data, folder = write(tmp_path / "rows.jsonl", STAGED_ROWS), tmp_path / "run"
    with FakeServer(reply=lambda body: f" {body['seed']}", known=None) as server:
        train("spa", source, data, folder, generation_server=server.url)
    for model in ("model", "stages/0/run/model", "stages/1/run/model", "stages/2/run/model"):
        assert asked_by(folder / model) == asked_by(source), model
    asked = {body["model"] for body in server.bodies}
    assert asked == {str(folder / f"stages/{n}/served") for n in (1, 2)}
    for path in asked:
        served = asked_by(Path(path))
        assert (served.pop("do_sample"), served.pop("top_k")) == (True, 0)
        assert (served.pop("temperature"), served.pop("top_p")) == (1.0, 1.0)
        assert set(served) <= {"bos_token_id", "eos_token_id", "pad_token_id"}
        assert served["eos_token_id"] == asked_by(source)["eos_token_id"]
    before, after = (folder / f"stages/{k}/model.safetensors" for k in ("0/run/model", "1/served"))
    assert before.read_bytes() == after.read_bytes()


def test_evaluation_answers_the_same(folders, tmp_path):
    prompts = [Prompted(str(k), row["prompt"]) for k, row in enumerate(ROWS)]
    settings = Settings(max_new_tokens=12, temperature=1.0)
    a, b = (answers(str(f), prompts, settings, tmp_path / f"{k}.jsonl", 4) for k, f in enumerate(folders))
    assert a == b
