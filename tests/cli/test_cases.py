"""Small inputs of the kinds that went wrong for people, through `prefopt check` and `prefopt train`.

Each file of `tests/data/cases` is tried through both, so that what one command says the other says too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from prefopt.cli.main import main

CASES = Path(__file__).parents[1] / "data" / "cases"


def command(*arguments: str) -> tuple[int, str]:
    """Exit code, and everything that was printed, on one line."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def check(name: str, *options: str) -> tuple[int, str]:
    return command("check", str(CASES / name), *options)


def train(name: str, model: Path, out: Path, method: str = "dpo", **given: Any) -> tuple[int, str]:
    keys = {
        "model": model,
        "data": CASES / name,
        "output_dir": out,
        "max_steps": 1,
        "sample_prompts": 0,
        **given,
    }
    return command(
        "train",
        method,
        *(f"{k}={json.dumps(v) if isinstance(v, list | dict) else v}" for k, v in keys.items()),
    )


def record(out: Path, name: str) -> Any:
    return json.loads((out / "record" / f"{name}.json").read_text())


REFUSED = {
    "prompt_dup.jsonl": r"in all 12 rows the completions begin with the prompt.*ignore_columns=\[prompt\]",
    "prompt_dup_msgs.jsonl": r"12 prompt_repeated .*both sides begin with the prompt's own messages.*ignore_columns=\[prompt\]",
    "rejected_user_role.jsonl": r"wrong_role \(first: line 1, rejected begins with a message of the role 'user'",
    "pyrepr.jsonl": r"12 python_repr .*as Python prints it.*json\.dumps",
    "label_int01.jsonl": r"unknown_label .*label is 0 \(int\).*ignore_columns=\[label\]",
    "target_text.jsonl": r"target is 'math' \(str\).*ignore_columns=\[target\]",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_all_rows_is_an_error_with_its_remedy(name, tiny_model, tmp_path):
    for code, said in (check(name), train(name, tiny_model, tmp_path / "run")):
        assert code == 1
        assert re.search(REFUSED[name], said), said
    assert not (tmp_path / "run").exists()


REMEDIES = [
    ("prompt_dup.jsonl", {"ignore_columns": ["prompt"]}),
    ("prompt_dup_msgs.jsonl", {"ignore_columns": ["prompt"]}),
    ("label_int01.jsonl", {"ignore_columns": ["label"]}),
    ("label_int01.jsonl", {"rename_columns": {"label": "class"}}),
    ("target_text.jsonl", {"ignore_columns": ["target"]}),
]


@pytest.mark.parametrize(("name", "keys"), REMEDIES)
def test_the_remedy_works(name, keys, template_model, tmp_path):
    options = [
        x
        for key, value in keys.items()
        for x in (
            f"--{key.replace('_', '-')}",
            ",".join(value) if isinstance(value, list) else ",".join(f"{a}:{b}" for a, b in value.items()),
        )
    ]
    code, said = check(name, *options)
    assert code == 0, said
    assert "used │ 12" in said
    code, said = train(name, template_model, tmp_path / "run", eval_size=0, **keys)
    assert code == 0, said
    assert record(tmp_path / "run", "data")["examples"] == 12


NOTED = {
    "alpaca.jsonl": "the prompt is read from 'instruction' and 'input', behind the system message in 'system'",
    "question_system.jsonl": "the prompt is read from 'question', behind the system message in 'system'",
    "system_col.jsonl": "the prompt is read from 'prompt', behind the system message in 'system'",
    "jsontext.jsonl": "messages written as JSON text were read as messages",
    "jsontext.parquet": "messages written as JSON text were read as messages",
    "dupid.jsonl": "6 row(s) repeat an id of an earlier row",
    "surrogate.jsonl": "2 bad_text",
}


@pytest.mark.parametrize("name", NOTED)
def test_what_is_read_in_an_unexpected_way_is_told(name, template_model, tmp_path):
    for code, said in (check(name), train(name, template_model, tmp_path / "run")):
        assert code == 0, said
        assert NOTED[name] in said
    dropped = (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()
    assert len(dropped) == (2 if name == "surrogate.jsonl" else 0)


def first_prompt(out: Path) -> str:
    return record(out, "first_pair")["sides"][0]["segments"][0]["text"]


def test_the_prompt_holds_what_the_columns_say(template_model, tmp_path):
    for n, (name, wanted) in enumerate(
        [
            ("question_system.jsonl", ["be nice", "0 + 1"]),
            ("system_col.jsonl", ["Answer as a pirate", "0 + 1"]),
            ("alpaca.jsonl", ["0 + 1"]),
        ]
    ):
        assert train(name, template_model, tmp_path / str(n), eval_size=0)[0] == 0
        prompt = first_prompt(tmp_path / str(n)).replace(" ", "")
        for text in wanted:
            assert text.replace(" ", "") in prompt


def test_compressed_rows_are_those_of_the_plain_file(tiny_model, tmp_path):
    code, said = check("pairs.jsonl.gz")
    assert code == 0, said
    code, said = train("pairs.jsonl.gz", tiny_model, tmp_path / "run")
    assert code == 0, said


def test_rows_that_hold_no_pairs_of_a_prompt_name_their_columns(tiny_model, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"topic": f"t{n}", "chosen": f"a{n}", "rejected": f"b{n}"}) + "\n" for n in range(4)
        )
    )
    for code, said in (command("check", str(path)), train(path, tiny_model, tmp_path / "run")):
        assert code == 1
        assert "no column of prompts (the columns are topic, chosen, rejected)" in said
        assert "rename_columns=" in said


def test_texts_beside_a_column_that_could_be_the_prompt(tiny_model, tmp_path):
    """All sides begin alike by chance, which must not be taken for the prompt."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"query": f"add {n} and 1", "chosen": f"It is {n + 1}.", "rejected": f"It is {n}."} for n in range(5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for code, said in (command("check", str(path)), train(path, tiny_model, tmp_path / "run")):
        assert code == 1
        assert "'query' could be one" in said
        assert "rename_columns={query: prompt}" in said
    assert command("check", str(path), "--rename-columns", "query:prompt")[0] == 0
    code, said = command("check", str(path), "--ignore-columns", "query")
    assert code == 0
    assert "the start that both texts share was taken" in said


# -- what is held out ----------------------------------------------------------------------------------------------


NOT_HELD_OUT = [
    ("one_prompt_60rows.jsonl", {}, "all 60 rows answer one prompt"),
    ("two.jsonl", {}, "eval_size=0.1 of 2 rows is less than one"),
    ("label_int01.jsonl", {"eval_size": 0, "ignore_columns": ["label"]}, "eval_size=0"),
    ("dupid.jsonl", {"eval_data": CASES / "dupid.jsonl"}, "every row of eval_data is also trained on"),
]


@pytest.mark.parametrize(("name", "given", "why"), NOT_HELD_OUT)
def test_training_rows_are_never_called_held_out(name, given, why, template_model, tmp_path):
    out = tmp_path / "run"
    code, said = train(
        name, template_model, out, **(given | {"sample_prompts": 1, "sample_max_new_tokens": 2})
    )
    assert code == 0, said
    assert "nothing is held out" in said
    assert why in said
    assert "evaluation after step 1, on training rows" in said
    assert why in record(out, "manifest")["data"]["not_held_out"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines} == {"train", "train_rows"}
    assert not any(key.startswith("eval_") for line in lines for key in line)
    assert {"train_rows_rewards/accuracies", "train_rows_kl"} <= set(lines[0])
    card, page = (out / "README.md").read_text(), (out / "report.html").read_text()
    assert "Accuracy, training comparisons" in card
    assert why in card.replace("\\", "")
    assert "Training accuracy" in page
    visible = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.S)
    for text in (card, visible):
        rest = re.sub("nothing (is|was) held out|held-out examples", "", text, flags=re.I)
        assert not re.search("held.out", rest, re.I), re.findall("(?is).{40}held.out.{40}", rest)


def test_the_evaluation_split_of_the_same_data_set_is_its_test_split(template_model, tmp_path):
    import datasets

    rows = [{"prompt": f"{n} + 1 =", "chosen": f" {n + 1}", "rejected": f" {n}"} for n in range(9)]
    parts = {"train": rows[:5], "extra": rows[5:6], "validation": rows[6:7], "test": rows[7:]}
    datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in parts.items()}).save_to_disk(
        tmp_path / "set"
    )
    for name, given, held in [
        ("a", {}, 2),
        ("b", {"eval_split": "validation"}, 1),
        ("c", {"eval_split": "train"}, 0),
    ]:
        code, said = train(
            tmp_path / "set", template_model, tmp_path / name, eval_data=tmp_path / "set", **given
        )
        assert code == 0, said
        assert record(tmp_path / name, "manifest")["data"]["eval_examples"] == held
        assert ("every row of eval_data is also trained on" in said) == (name == "c")


def test_some_held_out_rows_that_are_trained_on_are_counted(tiny_model, tmp_path):
    rows = [json.loads(line) for line in (CASES / "dupid.jsonl").open()]
    other = tmp_path / "other.jsonl"
    other.write_text(
        "".join(
            json.dumps(r) + "\n"
            for r in [*rows[:2], {"prompt": "9 + 9 =", "chosen": " 18", "rejected": " 1"}]
        )
    )
    code, said = train("dupid.jsonl", tiny_model, tmp_path / "run", eval_data=other)
    assert code == 0, said
    assert "2 of 3 held-out comparisons are also trained on" in said
    assert "2 of 3 held-out comparisons are also trained on" in (tmp_path / "run" / "README.md").read_text()


# -- other inputs of the same kinds ------------------------------------------------------------------------------


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


SAID = [
    (
        [{"prompt": f"Q{n} is what?", "chosen": f"Q{n} is  what? good", "rejected": f"\nQ{n} is what? bad"} for n in range(6)],
        1, "in all 6 rows the completions begin with the prompt",
    ),
    (
        [{"prompt": f"Question {n} is what?", "chosen": f"Human: Question {n} is what? Assistant: a", "rejected": f"Human: Question {n} is what? Assistant: b"} for n in range(6)],
        1, "in all 6 rows the completions begin with the prompt",
    ),
    (
        [{"prompt": f"Q{n} is what?", "chosen": f"Q{n} is what? good", "rejected": "bad"} for n in range(6)],
        0, "6 row(s): one of the completions repeats the prompt, and the other does not",
    ),
    (
        [{"query": f"Tell me about city {n // 4}, please.", "chosen": f"The city {n} is nice.", "rejected": f"The town {n} is big."} for n in range(40)],
        1, "'query' could be one",
    ),
    ([{"query": f"Paris{n}", "chosen": f"The city {n}.", "rejected": f"The town {n}."} for n in range(40)], 1, "'query' could be one"),
    ([{"context": {"text": f"a b {n}"}, "chosen": f"The city {n}.", "rejected": f"The town {n}."} for n in range(40)], 1, "'context' could be one"),
    (
        [{"comment": f"as it is {n}", "chosen": f"\n\nHuman: Q{n}?\n\nAssistant: yes", "rejected": f"\n\nHuman: Q{n}?\n\nAssistant: no"} for n in range(40)],
        0, "columns not read: comment",
    ),
    ([{"instruction": "Is it prime?", "input": n, "chosen": "No.", "rejected": "So."} for n in range(20, 26)], 0, "read from 'instruction' and 'input'"),
    ([{"prompt": "Extract.", "chosen": f'{{"role": "boss", "name": "Ann{n}"}}', "rejected": '{"role": "cook"}'} for n in range(6)], 0, "used │ 6"),
    ([{"prompt": json.dumps(json.dumps([{"role": "user", "content": f"q{n}"}])), **{s: json.dumps([{"role": "assistant", "content": s}]) for s in ("chosen", "rejected")}} for n in range(6)], 0, "written as JSON text were read as messages"),
    ([{"prompt": "p", "chosen": '[{"role": "assistant", "content": "aaa', "rejected": "b"}], 1, "broken_json"),
    ([{"prompt": "p", "chosen": "a", "rejected": "b", "label": "chosen"}], 1, "needed 'win', 'tie' or 'lose' (if label"),
    ([{"prompt": "p", "chosen": "a", "rejected": "b", "tools": "hammer"}], 1, "ignore_columns=[tools]"),
    ([{"prompt": "p", "chosen": "a", "rejected": "b", "image": "img0"}], 1, "to leave images out: ignore_columns=[image]"),
    ([{"prompt": f"p{n}", "chosen": "a", "rejected": "b", "id": float(n)} for n in range(4)], 0, "used │ 4"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "code", "said"), SAID)
def test_inputs_of_the_same_kinds(rows, code, said, tmp_path):
    found, text = command("check", lines(tmp_path / "rows.jsonl", rows))
    assert (found, said in text) == (code, True), text


def test_cells_of_a_csv_file_are_what_their_columns_are_called_in_the_end(tmp_path):
    from prefopt.modalities.text.rows import load_comparisons
    from prefopt.sources.columns import ColumnsAs

    path = tmp_path / "rows.csv"
    path.write_text("query,better,worse,verdict,w\nWhat is 20+1?,21,007,tie,2\ntrue,1.0,[1],win,3\n")
    names = {"query": "prompt", "better": "chosen", "worse": "rejected", "verdict": "label", "w": "weight"}
    first, second = load_comparisons(path, columns_as=ColumnsAs(names))
    assert [item.sample for item in first.items] == ["21", "007"]
    assert [item.sample for item in second.items] == ["1.0", "[1]"]
    assert second.items[0].condition["prompt"] == "true"
    assert (first.comparisons[0].outcome.tie, first.comparisons[0].weight) == (1.0, 2.0)


@pytest.mark.parametrize("size", [12, 50])
def test_holding_out_everything_is_refused(size, tiny_model, tmp_path):
    code, said = train("dupid.jsonl", tiny_model, tmp_path / "run", eval_size=size)
    assert code == 1
    assert f"eval_size={size} would hold out all 12 rows" in said
