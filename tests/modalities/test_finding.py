"""Finding modalities, also where somebody else's package is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prefopt import modalities
from prefopt.modalities import all_modalities, in_order, of_model, of_rows
from prefopt.report.account import Account, account_of
from prefopt.report.load import read_run

SOUND = """
from prefopt.modalities.base import Modality
MODALITY = Modality(name={name!r}, noun="x", traits=frozenset("abcdef"), model="x", claims={claims}, package=__name__)
"""


@pytest.fixture
def fresh() -> Iterator[None]:
    """What was found is forgotten, before and after."""
    for known in (all_modalities, of_model):
        known.cache_clear()
    yield
    for known in (all_modalities, of_model):
        known.cache_clear()


def install(folder: Path, package: str, code: str | None) -> None:
    """An entry point, and the package that it names unless there is no code."""
    info = folder / f"{package}-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[prefopt.modalities]\nstrange = {package}\n")
    if code is not None:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(code)


@pytest.mark.parametrize(
    ("package", "code", "reason"),
    [
        ("absent_package", None, "ModuleNotFoundError: No module named 'absent_package'"),
        ("nothing_said", "", "AttributeError"),
        ("raises", "raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("taken_name", SOUND.format(name="text", claims="lambda model: True"), "there is one called 'text' already"),
    ],
)  # fmt: skip
def test_a_broken_package_is_told_and_left_out(tmp_path, monkeypatch, fresh, package, code, reason):
    before = {name: kind.package for name, kind in all_modalities().items()}
    all_modalities.cache_clear()
    install(tmp_path, package, code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match=f"the package {package} is left out, because it failed .*{reason}"):
        assert {name: kind.package for name, kind in all_modalities().items()} == before
    assert of_model("world:text").name == "text"


def test_those_that_look_more_closely_are_asked_first():
    order = list(all_modalities())
    for name, kind in all_modalities().items():
        for other in kind.asked_before:
            assert order.index(name) < order.index(other), (name, other)
    assert all_modalities()["control"].asked_before == all_modalities()["motion"].asked_before == {"image"}


def test_two_that_want_to_be_before_each_other_are_both_asked():
    kinds = [replace(all_modalities()["text"], name=a, asked_before=frozenset({b})) for a, b in ("xy", "yx")]
    assert {kind.name for kind in in_order(kinds)} == {"x", "y"}


def test_a_package_that_breaks_when_asked_is_passed_over(tmp_path, monkeypatch, fresh):
    install(tmp_path, "cannot_claim", SOUND.format(name="strange", claims="lambda model: 1 / 0"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert next(iter(all_modalities())) == "strange"
    with pytest.warns(UserWarning, match="cannot_claim is left out, .*ZeroDivisionError"):
        assert of_model(str(tmp_path)).name == "text"
    with pytest.warns(UserWarning, match="No module named 'cannot_claim.check'"):
        assert of_rows(("prompt", "chosen", "rejected")).name == "text"
    with pytest.warns(UserWarning, match="No module named 'cannot_claim.report'"):
        assert account_of(read_run(tmp_path)) is all_modalities()["text"].part("report").ACCOUNT


def test_what_is_wrong_in_the_house_is_not_passed_over():
    with pytest.raises(ZeroDivisionError), modalities.skipped_if_broken("prefopt.modalities.text"):
        raise ZeroDivisionError


def test_a_run_whose_account_is_broken_has_the_plain_one(tmp_path, monkeypatch, fresh):
    install(tmp_path, "no_report", SOUND.format(name="strange", claims="lambda model: False"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "run" / "record").mkdir(parents=True)
    (tmp_path / "run" / "record" / "manifest.json").write_text('{"modality": "strange"}')
    with pytest.warns(UserWarning, match="No module named 'no_report.report'"):
        assert type(account_of(read_run(tmp_path / "run"))) is Account


def test_a_run_of_a_modality_that_is_not_installed(tmp_path):
    """It is not taken for a run of the modality that its model looks like."""
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "manifest.json").write_text('{"modality": "smells"}')
    (tmp_path / "config.yaml").write_text("model: world:text\n")
    with pytest.raises(ValueError, match=r"there is no modality 'smells'; there are .*text"):
        modalities.of_run(tmp_path)
    (tmp_path / "record" / "manifest.json").write_text("{}")
    assert modalities.of_run(tmp_path).name == "text"
