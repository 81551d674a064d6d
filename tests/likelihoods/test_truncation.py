"""truncation_mode=keep_end: the last tokens of prompt and completion, each side on its own, as in TRL."""

from __future__ import annotations

import json
import math
from array import array

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from conftest import ROWS
from prefopt.comparisons import WIN, Comparison, Encoded, Item
from prefopt.config import ConfigError
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.text.mismatched import with_mismatched
from tiny_vision import save_tiny
from training.test_processes import losses

LONG = "Count: red red blue fig pear one two"
TEXTS = [
    (LONG, " two"),
    (LONG, " fig two one red"),
    ("Count: one", " one two red pear"),
    (LONG, " red blue" * 8),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def test_the_end_is_kept(tokenizer):
    """Ids are the last of the whole; what is scored are the completion's own tokens among them, but for the first of all."""
    for limit in (4, 6, 8, 100):
        likelihood = TokenLikelihood(tokenizer, limit, truncation_mode="keep_end")
        for prompt, sample in TEXTS:
            item = likelihood.encode(Item({"prompt": prompt}, sample))
            before, whole = (
                tokenizer(x)["input_ids"] for x in (prompt, prompt + sample + tokenizer.eos_token)
            )
            assert list(item.ids) == whole[-limit:]
            scored = [n >= len(before) for n in range(len(whole))][-limit:][1:]
            assert [n >= item.start for n in range(1, len(item.ids))] == scored
            assert item.cut == len(whole) - len(item.ids)
            assert item.truncated == (item.cut >= len(before))


def test_the_default_keeps_the_start(tokenizer):
    item = TokenLikelihood(tokenizer, 12).encode(Item({"prompt": LONG}, TEXTS[3][1]))
    whole = tokenizer(LONG + TEXTS[3][1] + tokenizer.eos_token)["input_ids"]
    assert (list(item.ids), item.cut, item.truncated) == (whole[:12], 0, True)


def test_items_of_a_row_are_scored_from_one_place_of_the_whole_text(tokenizer):
    """Each has lost another number of tokens: places are compared in the whole texts, and the first token left is context."""
    likelihood = TokenLikelihood(tokenizer, 5, truncation_mode="keep_end")
    one = EncodedText(array("i", [4, 5, 6, 7, 8]), start=3, cut=2)  # scored from the whole's token 5
    other = EncodedText(array("i", [3, 4, 5, 6]), start=4 - 1)  # from 3
    third = EncodedText(array("i", [6, 7, 8, 9, 9]), start=1, cut=9, truncated=True)
    assert [item.start for item in likelihood.align([one, other, third])] == [1, 3, 1]
    same = EncodedText(array("i", [1, 2, 3, 4, 5]), start=3, cut=1)
    assert [
        item.start for item in likelihood.align([same, EncodedText(array("i", [0, 1, 2, 3, 4, 5]), start=4)])
    ] == [3, 4]


def test_completions_of_other_prompts_are_cut_so_too(tokenizer):
    def sample(name: str, prompt: list[int], completion: list[int]) -> tuple[str, Encoded]:
        item = EncodedText(array("i", prompt + completion), len(prompt))
        return name, Encoded(name, (item,), (Comparison(0, None, WIN),))

    samples = [sample("a", [1, 2, 3], [4]), sample("b", [5], [6, 7, 8, 9])]
    for mode, expected in {
        "keep_start": ([1, 2, 3, 6, 7], 3, 0),
        "keep_end": ([3, 6, 7, 8, 9], 1, 2),
    }.items():
        (aside,) = with_mismatched(samples, 5, mode)[0].aside
        assert (list(aside.ids), aside.start, aside.cut) == expected


def logp(model: torch.nn.Module, tokenizer: object, prompt: str, sample: str, limit: int) -> torch.Tensor:
    """Of the completion's tokens among the last ones, by transformers alone."""
    before, whole = (tokenizer(x)["input_ids"] for x in (prompt, prompt + sample + tokenizer.eos_token))
    ids = torch.tensor(whole[-limit:])
    places = [n for n in range(1, len(ids)) if len(whole) - len(ids) + n >= len(before)]
    return model(ids[None]).logits[0].log_softmax(-1)[[n - 1 for n in places], ids[places]].sum()


def test_a_run_learns_from_it_and_tells_which_rows(tiny_model, tokenizer, rows_file, own_cache, tmp_path):
    rows = [*ROWS[:2], {"id": "long", "prompt": LONG, "chosen": " two one fig", "rejected": " fig"},
            {"id": "longer", "prompt": "Count:", "chosen": " red" * 9, "rejected": " one"}]  # fmt: skip
    limit = 7
    run = prefopt.train(
        "dpo", model=tiny_model, data=rows_file(rows), output_dir=str(tmp_path / "run"), max_steps=2, eval_size=0, sample_prompts=0,
        max_length=limit, truncation_mode="keep_end", per_device_train_batch_size=4, logging_steps=1, optim="sgd",
        learning_rate=0.5, max_grad_norm=None, weight_decay=0, lr_scheduler_type="constant", beta=1.0,
    )  # fmt: skip
    assert not (run.output_dir / "dropped.jsonl").read_text()
    hints = [
        hint["text"] for hint in json.loads((run.output_dir / "record" / "data.json").read_text())["hints"]
    ]
    (told,) = [text for text in hints if "keep_end" in text]
    lost = [
        len(tokenizer(r["prompt"] + r[s] + tokenizer.eos_token)["input_ids"]) - limit
        for r in rows
        for s in ("chosen", "rejected")
    ]
    assert f"{sum(n for n in lost if n > 0)} tokens, at most {max(lost)} of one" in told
    assert "long, longer" in told
    assert "1 of them fill max_length alone" in told
    assert not any("lost their end" in text for text in hints)
    # the second step's loss, from a gradient step on plain transformers
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    start = [
        [float(logp(model, tokenizer, r["prompt"], r[s], limit)) for s in ("chosen", "rejected")]
        for r in rows
    ]
    expected = []
    for _ in range(2):
        rho = [[logp(model, tokenizer, r["prompt"], r[s], limit) - start[k][n] for n, s in enumerate(("chosen", "rejected"))]
               for k, r in enumerate(rows)]  # fmt: skip
        loss = torch.stack([-torch.nn.functional.logsigmoid(won - lost) for won, lost in rho]).mean()
        expected.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad
    assert expected[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses(run.output_dir) == pytest.approx(expected, rel=1e-4)
    assert abs(expected[1] - expected[0]) > 1e-2


def test_sides_that_end_alike_are_no_comparison(tiny_model, rows_file, own_cache, tmp_path):
    rows = [*ROWS, {"prompt": "Sort:", "chosen": " red one two fig", "rejected": " blue one two fig"}]
    run = prefopt.train(
        "dpo", model=tiny_model, data=rows_file(rows), output_dir=str(tmp_path / "run"), max_steps=1, eval_size=0, sample_prompts=0,
        max_length=3, truncation_mode="keep_end",
    )  # fmt: skip
    dropped = [json.loads(line) for line in (run.output_dir / "dropped.jsonl").read_text().splitlines()]
    assert (
        "the sides differ only before the last 3 tokens, which is all that is kept" in dropped[-1]["detail"]
    )


@pytest.mark.slow
def test_as_trl_cuts(tokenizer):
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    likelihood = TokenLikelihood(tokenizer, 6, truncation_mode="keep_end")
    rows = []
    for prompt, sample in TEXTS:
        before, whole = (tokenizer(x)["input_ids"] for x in (prompt, prompt + sample + tokenizer.eos_token))
        ids = whole[len(before) :]
        rows.append({"prompt_ids": before, "chosen_ids": ids, "rejected_ids": ids})
    batch = DataCollatorForPreference(pad_token_id=0, max_length=6, truncation_mode="keep_end")(rows)
    for (prompt, sample), ids, mask, seen in zip(
        TEXTS, batch["input_ids"], batch["completion_mask"], batch["attention_mask"], strict=False
    ):
        item = likelihood.encode(Item({"prompt": prompt}, sample))
        assert ids[seen.bool()].tolist() == list(item.ids)
        scored = [n >= item.start for n in range(1, len(item.ids))]
        assert mask[seen.bool()][1:].bool().tolist() == scored  # the first is never predicted


def test_pictures_cannot_be_cut(rows_file, tmp_path):
    model = save_tiny("llava", tmp_path / "model")
    told = r"truncation_mode=keep_end cuts the beginning of the prompt, where pictures"
    with pytest.raises(ConfigError, match=told):
        prefopt.train(
            "dpo",
            model=model,
            data=rows_file(ROWS),
            truncation_mode="keep_end",
            output_dir=str(tmp_path / "run"),
        )
