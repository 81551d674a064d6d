"""A chat template that prints today's date: the date is the run's, not the clock's."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

import prefopt
from modalities.image.image_runs import weights
from prefopt.config import ConfigError, resolve
from prefopt.likelihoods import clock
from prefopt.likelihoods.clock import Clock, dated
from prefopt.likelihoods.tokens import TokenLikelihood
from stages import staged_rig

# as Llama 3's: a variable that the caller may set, else today
DATED = (
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{ 'Today: ' + date_string + ' ' }}"
    "{%- for m in messages %}{{ m['role'] + ' ' + m['content'] + eos_token }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ 'assistant ' }}{%- endif %}"
)
HOUR = DATED.replace("%d %b %Y", "%Y-%m-%d %H:%M:%S.%f")
FIRST, LATER = datetime.date(2026, 3, 1), datetime.date(2026, 4, 12)
OPTIONS: dict[str, Any] = {
    "max_steps": 4, "save_steps": 2, "logging_steps": 1, "learning_rate": 1e-3, "eval_size": 2, "sample_prompts": 2,
    "sample_max_new_tokens": 4, "per_device_train_batch_size": 2, "max_length": 120,
}  # fmt: skip


def messages(text: str, role: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


ROWS = [
    {"prompt": messages(row["prompt"], "user"), "chosen": messages(row["chosen"], "assistant"),
     "rejected": messages(row["rejected"], "assistant")}
    for row in staged_rig.ROWS[:8]
]  # fmt: skip


@pytest.fixture(scope="module", params=[DATED, HOUR], ids=["date", "time"])
def dated_model(request, tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dated") / "model"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = request.param
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def on(monkeypatch):
    """Sets the machine's date."""
    return lambda day: monkeypatch.setattr(clock, "calendar", lambda: day)


def train(model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


def config_of(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "config.yaml").read_text())


def samples(folder: Path) -> Any:
    return json.loads((folder / "record" / "samples.json").read_text())["prompts"]


def cut(folder: Path) -> None:
    """As if the run had been killed after its first checkpoint."""
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    shutil.rmtree(folder / "model")


def test_resumed_on_another_day(dated_model, rows_file, own_cache, tmp_path, on, capsys):
    data, run = rows_file(ROWS), tmp_path / "run"
    on(FIRST)
    train(dated_model, data, run)
    assert "the chat template prints the date: 2026-03-01" in capsys.readouterr().err
    assert config_of(run)["template_date"] == FIRST
    expected, drawn, lines = weights(run), samples(run), (run / "metrics.jsonl").read_text()
    cut(run)
    on(LATER)
    train(dated_model, data, run, resume=True)
    assert weights(run) == expected
    assert samples(run) == drawn
    assert (run / "metrics.jsonl").read_text() == lines
    cut(run)
    prefopt.train(config=run / "config.yaml", resume=True)  # with the date in the file
    assert weights(run) == expected
    prefopt.train(config=run / "config.yaml", output_dir=str(tmp_path / "again"))
    assert weights(tmp_path / "again") == expected
    train(dated_model, data, tmp_path / "later")
    assert config_of(tmp_path / "later")["template_date"] == LATER
    assert weights(tmp_path / "later") != expected
    with pytest.raises(ConfigError, match="other data"):
        train(dated_model, data, run, resume=True, template_date=LATER)


def test_another_day_is_another_reference(dated_model, rows_file, own_cache, tmp_path, on):
    """Scores under one date are not taken for those under another."""
    data = rows_file(ROWS)
    for day in (FIRST, LATER):
        on(day)
        run = tmp_path / str(day)
        train(dated_model, data, run, max_steps=1)
        checks = json.loads((run / "record" / "manifest.json").read_text())["checks"]
        (told,) = (c["detail"] for c in checks if c["name"] == "reference cache")
        scored, items = told.split(" items scored")[0].split(" of ")
        assert scored == items
        (start,) = (c for c in checks if c["name"] == "start value")
        assert start["status"] == "pass"


def test_templates_that_print_no_date_are_not_dated(tiny_model, rows_file, own_cache, tmp_path):
    train(tiny_model, rows_file(staged_rig.ROWS), tmp_path / "run", max_steps=1)
    assert config_of(tmp_path / "run")["template_date"] is None


def test_a_date_in_the_row_stands(dated_model):
    """`chat_template_kwargs` sets the template's own variable: then it asks for no date."""
    likelihood = TokenLikelihood(AutoTokenizer.from_pretrained(dated_model))
    condition = {"prompt": ROWS[0]["prompt"], "chat_template_kwargs": {"date_string": "26 Jul 2024"}}
    likelihood.prompt_ids(condition)
    assert not likelihood.clock.asked
    likelihood.prompt_ids({"prompt": ROWS[0]["prompt"]})
    assert likelihood.clock.asked


def test_the_clock_stands_within_and_goes_on_outside(dated_model):
    tokenizer = AutoTokenizer.from_pretrained(dated_model)
    with dated(FIRST):
        standing = Clock()
    with standing.stands():
        text = tokenizer.apply_chat_template(ROWS[0]["prompt"], tokenize=False)
    assert text.startswith("Today: " + FIRST.strftime("%d %b %Y")) or text.startswith(
        "Today: 2026-03-01 00:00:00"
    )
    now = tokenizer.apply_chat_template(ROWS[0]["prompt"], tokenize=False)
    assert str(datetime.date.today().year) in now
    assert "2026-03-01" not in now


def test_dates_in_configurations():
    needed = {"method": "dpo", "model": "m", "data": "d"}
    for given in ("2026-03-01", FIRST):
        assert resolve({**needed, "template_date": given})[0].template_date == FIRST
    with pytest.raises(ConfigError, match=r"template_date.*given 'yesterday'"):
        resolve({**needed, "template_date": "yesterday"})


@pytest.mark.parametrize("dated_model", [DATED], indirect=True)
def test_rounds_have_one_date(dated_model, own_cache, tmp_path, on, monkeypatch):
    """Also those of a later day, and what is sampled in them."""
    rows = [{**row, "id": str(n)} for n, row in enumerate(ROWS)]
    data = staged_rig.write(tmp_path / "rows.jsonl", rows)
    more = {"rounds": 1, "seed_pairs": 3, "prompts_per_round": 2, "max_length": 120, "response_tokens": 4}
    on(FIRST)
    staged_rig.train("spa", dated_model, data, tmp_path / "straight", **more)
    from prefopt.modalities.text import answers

    with monkeypatch.context() as patch:
        patch.setattr(answers, "score", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            staged_rig.train("spa", dated_model, data, tmp_path / "run", **more)
    on(LATER)
    staged_rig.train("spa", dated_model, data, tmp_path / "run", resume=True, **more)
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    assert config_of(tmp_path / "run" / "stages" / "1" / "run")["template_date"] == FIRST
    with pytest.raises(ConfigError, match="begun with other template_date"):
        staged_rig.train("spa", dated_model, data, tmp_path / "run", resume=True, template_date=LATER, **more)


def test_an_evaluation_is_continued_on_its_own_day(tmp_path, on):
    from prefopt.cli.evaluate import day_of

    on(FIRST)
    assert day_of(tmp_path) == FIRST
    on(LATER)
    assert day_of(tmp_path) == FIRST


def test_check_tells(dated_model, tiny_model, rows_file):
    from click.testing import CliRunner

    from prefopt.cli.main import main

    told = [
        " ".join(
            CliRunner().invoke(main, ["check", str(rows_file(rows)), "--model", str(model)]).output.split()
        )
        for model, rows in ((dated_model, ROWS), (tiny_model, staged_rig.ROWS))
    ]
    assert "the chat template prints the date" in told[0]
    assert "the chat template" not in told[1]
