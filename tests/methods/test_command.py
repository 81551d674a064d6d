"""`prefopt methods`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from prefopt import methods, objectives
from prefopt.cli.methods import command
from prefopt.config import FIELD_NAMES, applying
from prefopt.modalities import all_modalities


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
    trained = [kind for kind in all_modalities().values() if method.modality in ("any", *kind.traits)]
    usable = frozenset().union(*(applying(name, kind.traits) for kind in trained))
    for key in (*objectives.hyperparameters(name), *FIELD_NAMES):
        assert (f"\n  {key} " in result.output) == (key in usable or key not in FIELD_NAMES), key


def test_keys_of_some_models_stand_apart() -> None:
    everywhere, _, rest = run("dpo").output.partition("Configuration keys for image and control models")
    images, _, rest = rest.partition("Configuration keys for image, control and motion models")
    drawn, _, texts = rest.partition("Configuration keys for text and vision-language models")
    for part, key in (
        (everywhere, "seed"),
        (images, "resolution"),
        (drawn, "guidance_scale"),
        (texts, "max_length"),
    ):
        assert f"\n  {key} " in part, key
    only = run("lpo").output
    assert "Configuration keys for" not in only
    for key, there in (
        ("candidates", True),
        ("max_length", False),
        ("prompt_dropout", False),
        ("rounds", False),
    ):
        assert (f"\n  {key} " in only) == there, key


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
