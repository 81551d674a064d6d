"""Where scoring begins: one place for all completions of a prompt, and conversations as generation will see them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from likelihoods.tokenizers import DROPS_THINKING, FAITHFUL, OPENS_THINKING, joining_tokenizer
from prefopt.comparisons import Item
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.text.encoding import EncodedComparisons, encode_examples
from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources.unpaired import unpair

CASES = Path(__file__).parents[1] / "data" / "cases"
BOUNDARY = [json.loads(line) for line in (CASES / "boundary.jsonl").open()]


def encoded(rows: list[dict[str, Any]], tokenizer: Any, singles: bool = False) -> EncodedComparisons[Any]:
    comparisons = load_comparisons(rows)
    return encode_examples(unpair(comparisons) if singles else comparisons, TokenLikelihood(tokenizer))


def pieces(tokenizer: Any, item: Any) -> tuple[list[str], list[str]]:
    tokens = tokenizer.convert_ids_to_tokens(list(item.ids))
    return tokens[: item.start], tokens[item.start :]


@pytest.mark.parametrize("singles", [False, True])
def test_both_sides_are_scored_from_the_first_token_that_either_differs_in(singles):
    tokenizer = joining_tokenizer(t for row in BOUNDARY for t in (row["prompt"] + row["chosen"], " blue"))
    found = encoded(BOUNDARY, tokenizer, singles)
    items = [item for e in found.examples for item in e.items]
    for chosen, rejected in zip(items[::2], items[1::2], strict=True):
        # the space at the prompt's end is a token of its own before a digit, and a part of " blue"
        assert pieces(tokenizer, chosen)[1][0] == " "
        assert pieces(tokenizer, rejected)[1][0] == " blue"
        assert pieces(tokenizer, chosen)[0] == pieces(tokenizer, rejected)[0]
        assert chosen.start == rejected.start
    told = [h for h in found.report.hints if "merges with the beginning" in h.text]
    assert [(h.level, h.text.split()[0]) for h in told] == [("warn", str(len(BOUNDARY)))]


def test_where_nothing_merges_each_side_keeps_its_place():
    rows = [{"prompt": "1 + 1 answer:", "chosen": " 2", "rejected": " blue"}]
    tokenizer = joining_tokenizer(["1 + 1 answer: 2 blue"])
    found = encoded(rows, tokenizer)
    assert [pieces(tokenizer, item)[1] for item in found.examples[0].items] == [
        [" ", "2", "</s>"],
        [" blue", "</s>"],
    ]
    assert not any("merges" in h.text for h in found.report.hints)


def test_a_prompt_that_one_side_swallows_begins_anew_for_both():
    """A prompt of one token that joins with one completion: both are scored behind a start token."""
    tokenizer = joining_tokenizer([" ", " blue", " 7"])
    found = encoded([{"prompt": " ", "chosen": "blue", "rejected": "7"}], tokenizer)
    assert [pieces(tokenizer, item) for item in found.examples[0].items] == [
        (["<s>"], [" blue", "</s>"]),
        (["<s>"], [" ", "7", "</s>"]),
    ]
    limited = TokenLikelihood(tokenizer, max_length=3)
    cut = encode_examples(load_comparisons([{"prompt": " ", "chosen": "blue", "rejected": "7"}]), limited)
    assert [(len(i.ids), i.truncated) for i in cut.examples[0].items] == [(3, False), (3, True)]


def test_items_under_other_prompts_are_left_alone():
    tokenizer = joining_tokenizer(["1 + 1 answer: 2 blue"])
    likelihood = TokenLikelihood(tokenizer)
    one = likelihood.encode(Item({"prompt": "answer: "}, "blue"))
    other = likelihood.encode(Item({"prompt": "1 + 1 answer: "}, "2"))
    assert likelihood.align([one]) == [one]
    assert likelihood.align([other]) == [other]
    assert one.start < other.start


def test_random_boundaries_agree_with_a_search_for_the_first_difference():
    rng = random.Random(3)
    words = ["a", "b", " ", "7", " a", " 7", "b ", "7 "]
    tokenizer = joining_tokenizer(["a b 7", "ab", "ba", "aa", "bb", "aab", "bab"])
    rows = [
        {"prompt": "7:" + "".join(rng.choices(words, k=2)), "chosen": a, "rejected": b}
        for _ in range(60)
        if (a := "".join(rng.choices(words, k=3))).strip()
        and (b := "".join(rng.choices(words, k=2))).strip()
        and a != b
    ]
    for example in encoded(rows, tokenizer).examples:
        row = rows[int(example.id.split("-")[1]) - 1]
        alone = tokenizer(row["prompt"])["input_ids"]
        wholes = [
            tokenizer(row["prompt"] + row[side] + "</s>")["input_ids"] for side in ("chosen", "rejected")
        ]
        first = min(
            next(n for n in range(len(whole)) if n == len(alone) or whole[n] != alone[n]) for whole in wholes
        )
        assert [item.start for item in example.items] == [first, first]
        assert [list(item.ids) for item in example.items] == wholes


# -- chat templates ------------------------------------------------------------------------------------------------


def chat(template: str, rows: list[dict[str, Any]]) -> list[str]:
    tokenizer = joining_tokenizer([json.dumps(rows), "<|assistant|> <|user|> <|system|> <|end|> think"])
    tokenizer.chat_template = template
    return [h.text for h in encoded(rows, tokenizer).report.hints if h.level == "warn"]


THINKING = [json.loads(line) for line in (CASES / "thinking.jsonl").open()]
USER = {"role": "user", "content": "1 + 1"}


def says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_a_completion_that_does_not_continue_what_generation_shows():
    texts = chat(OPENS_THINKING, THINKING)
    sides = 2 * len(THINKING)
    assert any(
        t.startswith(f"{sides} completion(s): the chat template renders the completion so") for t in texts
    )


def test_thinking_that_the_template_drops():
    texts = chat(DROPS_THINKING, THINKING)
    assert any(
        t.startswith(
            f"{2 * len(THINKING)} completion(s): the chat template leaves out text of the completion"
        )
        for t in texts
    )
    assert not any("does not continue" in t for t in texts)


def test_earlier_thinking_that_the_template_drops():
    prompt = [USER, says("assistant", "<think>\nsum\n</think>2"), says("user", "and 2 + 2")]
    rows = [{"prompt": prompt, "chosen": [says("assistant", "4")], "rejected": [says("assistant", "5")]}]
    assert any(
        t.startswith("2 completion(s): the chat template leaves out text of the prompt")
        for t in chat(DROPS_THINKING, rows)
    )


def test_turns_of_the_user_within_a_completion():
    more = [says("assistant", "2"), says("user", "sure?"), says("assistant", "yes")]
    rows = [{"prompt": [USER], "chosen": more, "rejected": [says("assistant", "3")]}]
    assert any(
        t.startswith("1 completion(s): the completion holds turns of the user") for t in chat(FAITHFUL, rows)
    )


def test_a_faithful_template_is_not_accused():
    rows = [
        {
            "prompt": [says("system", " be brief "), USER],
            "chosen": [says("assistant", "\n2 ")],
            "rejected": [says("assistant", "3")],
        }
    ]
    assert chat(FAITHFUL, rows) == []


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
}
SCHEMA = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
WITH_TOOLS = FAITHFUL.replace(
    "{{ m.content | trim }}", "{{ m.content | trim }}{{ (m.tool_calls or []) | tojson }}"
) + ("{{ (tools or []) | tojson }}")


def test_calls_and_schemas_of_tools_that_the_template_drops():
    rows = [{"prompt": [USER], "chosen": [CALL], "rejected": [says("assistant", "3")], "tools": [SCHEMA]}]
    texts = chat(FAITHFUL, rows)
    assert any(t.startswith("1 completion(s): the chat template leaves out calls of tools") for t in texts)
    assert any(t.startswith("2 completion(s): the chat template leaves out the schemas") for t in texts)
    assert not any("leaves out" in t for t in chat(WITH_TOOLS, rows))


def test_a_row_that_the_template_cannot_take_is_the_rows_fault():
    good = {"prompt": [USER], "chosen": [says("assistant", "2")], "rejected": [says("assistant", "3")]}
    deep = value = {}
    for _ in range(3000):
        value["a"] = value = {}
    rows = [good, good | {"tools": [SCHEMA | {"function": deep}]}, good | {"tools": [{"name": 3}]}]
    tokenizer = joining_tokenizer([json.dumps(good), "<|assistant|> <|user|> <|end|>"])
    tokenizer.chat_template = WITH_TOOLS
    found = encoded(rows, tokenizer)
    assert [e.id for e in found.examples][:1] == ["row-1"]
    assert {d.reason for d in found.dropped} <= {"chat_template", "too_deep"}
    assert any(d.id == "row-2" for d in found.dropped)
