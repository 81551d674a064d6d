"""What methods of several runs ask of a modality: one that has the part has the methods, one that lacks it is refused."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import pytest

from prefopt import modalities
from prefopt.config import ConfigError
from prefopt.modalities.base import Modality
from prefopt.modalities.text.doubtful import Pairs as TextPairs
from prefopt.stages.answers import Answers, Pairs, answers_of

SMELLS = Modality(
    name="smells", noun="smell", traits=frozenset({"smells"}), model="a smell", claims=lambda model: True,
    package="made_up_modality",
)  # fmt: skip


def public(face: type) -> dict[str, object]:
    return {name: value for name, value in vars(face).items() if not name.startswith("_")}


def test_text_offers_all_that_is_asked():
    part = answers_of(modalities.find("text"), "m", "spa")
    assert set(part.__all__) == set(public(Answers))
    for name, asked in public(Answers).items():
        if inspect.isfunction(asked):
            given = list(inspect.signature(getattr(part, name)).parameters)
            assert given == list(inspect.signature(asked).parameters)[1:], name
        else:
            assert callable(getattr(part, name))
    assert set(public(Pairs)) <= set(dir(TextPairs)) | set(TextPairs.__annotations__)


@pytest.fixture
def folder(monkeypatch) -> ModuleType:
    """The package of a modality."""
    package = ModuleType("made_up_modality")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "made_up_modality", package)
    return package


def test_a_modality_without_answers_is_refused(folder):
    with pytest.raises(
        ConfigError,
        match="spa trains models that answer prompts, and roses is not one: its modality is smells",
    ):
        answers_of(SMELLS, "roses", "spa")


def test_a_modality_with_answers_is_asked(folder, monkeypatch):
    part = ModuleType("made_up_modality.answers")
    monkeypatch.setitem(sys.modules, "made_up_modality.answers", part)
    assert answers_of(SMELLS, "roses", "spa") is part


def test_what_the_part_itself_needs_is_named(folder, monkeypatch, tmp_path):
    folder.__path__ = [str(tmp_path)]
    (tmp_path / "answers.py").write_text("import nose_that_is_not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="nose_that_is_not_installed"):
        answers_of(SMELLS, "roses", "spa")
