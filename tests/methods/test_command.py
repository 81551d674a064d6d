"""`prefopt methods`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from prefopt import methods, objectives
from prefopt.cli.methods import command
from prefopt.config import FIELD_NAMES, IMAGE_FIELDS, ONLINE_FIELDS, REWARD_FIELDS, STAGED_FIELDS


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, terminal_width=100, env={"COLUMNS": "100"})


def test_the_list_names_every_method() -> None:
    lines = run().output.splitlines()
    listed = {line.split()[0] for line in lines if line.strip()}
    assert set(methods.all_methods()) <= listed


@pytest.mark.parametrize("name", methods.all_methods())
def test_one_method_with_its_keys_and_paper(name: str) -> None:
    result = run(name)
    assert result.exit_code == 0, result.output
    for part in (
        "When to use it",
        "When it goes wrong",
        "Configuration keys",
        "@article{",
        methods.all_methods()[name].paper.url,
    ):
        assert part in result.output
    method = methods.all_methods()[name]
    foreign = IMAGE_FIELDS if method.modality == "text" else frozenset()
    foreign |= frozenset() if method.rows == "prompts" else ONLINE_FIELDS
    foreign |= frozenset() if method.likelihood == "reward" else REWARD_FIELDS
    foreign |= frozenset() if method.stages else STAGED_FIELDS
    foreign -= {"judge"} if method.stages == "judged" else set()
    for key in (*objectives.hyperparameters(name), *FIELD_NAMES):
        assert (f"\n  {key} " in result.output) == (key not in foreign), key


def test_defaults_shown_are_the_method_s() -> None:
    assert "learning_rate = 8e-06" in run("orpo").output
    assert "beta = 0.05" in run("hinge").output
    assert "margin = sum" in run("dpo").output


def test_other_names_and_dashes() -> None:
    assert run("dpo-rk").output == run("dpo_rk").output == run("rao_kupper").output


@pytest.mark.parametrize(
    ("name", "said"),
    [("simp", "did you mean 'simpo'"), ("dpo+sft", "one by one"), ("zzzz", "`prefopt methods` lists them")],
)
def test_unknown_names(name: str, said: str) -> None:
    result = run(name)
    assert result.exit_code == 1
    assert said in result.output
