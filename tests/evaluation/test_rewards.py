"""Rewards by name: reward models as transformers computes them row by row, functions of files, sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prefopt.evaluation import contest
from prefopt.evaluation.judges import Duel
from prefopt.evaluation.reward_models import RewardModel
from prefopt.evaluation.reward_names import reward_named
from prefopt.evaluation.rewards import WeightedSum, as_reward
from tiny_rewards import save_reward_model

PROMPTS = ["Sort: pear fig apple", "Unique: red red", "Reverse: one two", "Sort: two pear blue red fig"]
ANSWERS = [" apple fig pear", " red one", " two", " blue fig pear red two two two"]
RULES = "def short(prompt, answer):\n    return -len(answer)\ndef broken(prompt, answer):\n    return {}[prompt]\nx = 3\n"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def reward_model(tokenizer, tmp_path_factory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("rewards") / "helpful", tokenizer)


def alone(folder: Path, text: str, **options) -> float:
    """By transformers: one row, nothing padded."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return float(
            model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", **options)).logits[0, 0]
        )


@pytest.mark.parametrize(
    ("kind", "pad"), [("llama", "own"), ("llama", None), ("gpt2", None), ("gpt2", "eos"), ("bert", "own")]
)
def test_padding_never_matters(kind, pad, tokenizer, tmp_path):
    folder = save_reward_model(
        tmp_path / "rm", tokenizer, kind, pad=tokenizer.eos_token_id if pad == "eos" else pad
    )
    answers = [*ANSWERS[:3], ANSWERS[3] + tokenizer.eos_token]  # one ends as trained ones do
    ended = [True, False, True, True]
    ends = [tokenizer.eos_token, "", tokenizer.eos_token, ""]
    wanted = [alone(folder, p + a + end) for p, a, end in zip(PROMPTS, answers, ends, strict=True)]
    assert len({round(value, 4) for value in wanted}) == 4
    for size in (1, 3, 4):
        assert RewardModel(str(folder), size).scores(PROMPTS, answers, ended) == pytest.approx(
            wanted, abs=1e-5
        )
    assert RewardModel(str(folder))(PROMPTS[0], answers[0]) == pytest.approx(wanted[0], abs=1e-5)


@pytest.mark.slow
def test_plain_rows_are_read_as_trl_trains_on_them(reward_model, tmp_path):
    trl = pytest.importorskip("trl", reason="the rows are compared with those of TRL's RewardTrainer")
    from datasets import Dataset

    lines = [{"prompt": p, "chosen": a, "rejected": a + " x"} for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    config = trl.RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    trainer = trl.RewardTrainer(
        str(reward_model), args=config, train_dataset=Dataset.from_list(lines), processing_class=tokenizer
    )
    model = RewardModel(str(reward_model))
    model.scores(PROMPTS[:1], ANSWERS[:1])  # loads it
    assert [model._ids(p, a, True) for p, a in zip(PROMPTS, ANSWERS, strict=True)] == [
        *trainer.train_dataset["chosen_ids"]
    ]


def test_conversations_go_through_the_models_own_template(template_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(template_model)
    # one that begins every text with <s>, which the template is to leave out
    begin = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[begin])
    folder = save_reward_model(tmp_path / "rm", tokenizer)
    said = [{"role": "system", "content": "be"}, {"role": "user", "content": "2+2?"}]
    found = RewardModel(str(folder)).scores([said], ["4"])
    text = "<|system|>be<|end|><|user|>2+2?<|end|><|assistant|>4<|end|>"
    assert found == pytest.approx([alone(folder, text, add_special_tokens=False)], abs=1e-5)


def test_what_is_no_reward_model_is_refused_unread(
    tiny_model, tokenizer, reward_model, tmp_path, monkeypatch
):
    several = save_reward_model(tmp_path / "several", tokenizer, labels=3)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(reward_model)}))
    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_pretrained", None)
    for name, message in {
        f"reward:{tiny_model}": "LlamaForCausalLM, which gives no score to a text; needed a sequence classifier with one label",
        f"reward:{several}": "has 3 labels; needed a sequence classifier with one label",
        f"reward:{tmp_path / 'nothing'}": "no model folder at",
        f"reward:{adapter}": "is an adapter of .*merge it first",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            reward_named(name)


def test_missing_weights_templates_and_long_rows(tokenizer, tiny_model, reward_model, tmp_path):
    bare = AutoTokenizer.from_pretrained(tiny_model)
    bare.chat_template = None
    folder = save_reward_model(tmp_path / "bare", bare)
    with pytest.raises(ValueError, match="no chat template: set"):
        RewardModel(str(folder)).scores([[{"role": "user", "content": "Hi"}]], ["Ho"])
    with pytest.raises(ValueError, match="has 128 positions; needed"):
        RewardModel(str(reward_model)).scores(["Sort: red"], [" red" * 200])
    from safetensors.torch import load_file, save_file

    folder = save_reward_model(tmp_path / "rm", tokenizer)
    weights = load_file(folder / "model.safetensors")
    weights.pop("score.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"score\.weight"):
        RewardModel(str(folder)).scores(["Sort: red"], [" red"])


def test_weighted_sums(reward_model, tmp_path):
    (tmp_path / "rules+more.py").write_text(RULES)
    rule = f"{tmp_path / 'rules+more.py'}:short"
    found = reward_named(f"0.7*reward:{reward_model}+-0.25*{rule}+world:text")
    assert isinstance(found, WeightedSum)
    assert [weight for weight, _ in found.parts] == [0.7, -0.25, 1.0]
    assert found.labels == ["helpful", "short", "world:text"]
    apart = found.apart(PROMPTS, ANSWERS)
    assert apart["short"] == [-len(a) for a in ANSWERS]
    assert apart["world:text"][0] == 1.0
    by_hand = [
        0.7 * h + 0.25 * len(a) + w
        for h, a, w in zip(apart["helpful"], ANSWERS, apart["world:text"], strict=True)
    ]
    assert found.scores(PROMPTS, ANSWERS) == pytest.approx(by_hand)
    assert reward_named(rule)(PROMPTS[0], "abc") == -3
    assert reward_named(f"2*{rule}")(PROMPTS[0], "abc") == -6
    assert as_reward(found) is found
    assert reward_named("1e+1*world:text")(PROMPTS[0], "apple fig pear") == 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip:DIR", "no judge of texts is called 'clip:DIR'.*openai:MODEL@URL"),
        ("world:picture", "no judge of texts is called 'world:picture'"),
        ("0.5*world:text+openai:judge@http://x/v1", "compares answers two at a time and gives no rewards"),
        ("heavy*world:text", "no judge of texts is called 'heavy"),
        ("world:text+world:text", "world:text is named twice; add its weights up"),
        ("{rules}:nothing", "has no function 'nothing'"),
        ("{rules}:x", "is a int and no function"),
        ("{rules}.py:short", "there is no file"),
    ],
)
def test_names_that_are_none(name, message, tmp_path):
    (tmp_path / "rules.py").write_text(RULES)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        reward_named(name.replace("{rules}", str(tmp_path / "rules.py")))
    with pytest.raises(
        ValueError, match=r"the judge .*broken failed on prompt 'Sort: red' and answer 'x': KeyError"
    ):
        reward_named(f"{tmp_path / 'rules.py'}:broken")("Sort: red", "x")


def test_evaluations_take_the_same_names(reward_model, tmp_path):
    prompts = [contest.Prompted(str(n), text) for n, text in enumerate(PROMPTS)]
    judge = contest.the_judge(f"reward:{reward_model}", prompts, tmp_path / "journal")
    other = list(reversed(ANSWERS))
    duels = [Duel(p.id, p.prompt, a, b) for p, a, b in zip(prompts, ANSWERS, other, strict=True)]
    scores = RewardModel(str(reward_model))
    ours, theirs = scores.scores(PROMPTS, ANSWERS), scores.scores(PROMPTS, other)
    assert judge.preferences(duels) == [float(a > b) for a, b in zip(ours, theirs, strict=True)]
