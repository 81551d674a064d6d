"""Papers, found by being there: their runs at small sizes, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from click.testing import CliRunner

import prefopt.reproduce
from prefopt.cli.reproduce import command
from prefopt.reproduce import all_papers, reproduce
from prefopt.reproduce.bpo.sweeps import sweep_lambda
from prefopt.reproduce.core import Asked, Part, Table
from prefopt.reproduce.ties import run
from prefopt.reproduce.ties.preservation import preservation


def numbers(result):
    return [(c.statement, c.measured, c.interval, c.verdict) for c in result.claims]


def test_same_seeds_same_numbers():
    def run():
        return numbers(sweep_lambda(range(2), pairs=128, epochs=1))

    assert run() == run()
    assert numbers(preservation(range(2), steps=5)) == numbers(preservation(range(2), steps=5))


def test_papers_are_the_folders_that_are_there():
    here = Path(prefopt.reproduce.__file__).parent
    assert list(all_papers()) == sorted(file.parent.name for file in here.glob("*/run.py"))


def test_a_paper_knows_no_other():
    graph = grimp.build_graph("prefopt", cache_dir=None)
    for name in all_papers():
        inside = f"prefopt.reproduce.{name}"
        for module in (inside, *graph.find_descendants(inside)):
            for other in graph.find_modules_directly_imported_by(module):
                room, _, rest = other.removeprefix("prefopt.").partition(".")
                assert room != "reproduce" or rest.partition(".")[0] in {name, *SHARED}, (module, other)


SHARED = {"core", "lm", "loglinear", "paired", "plots", "runs", "tabular"}


def test_asking_about_papers_is_cheap():
    code = (
        "import sys, prefopt.cli.reproduce\n"
        "print(*{'torch', 'numpy', 'scipy', 'matplotlib', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_reproduction_is_what_its_parts_found(monkeypatch):
    asked = []

    def experiments(given):
        asked.append(given)
        yield Part(settings={"first": 1}, notes=["of a part"], uncounted=1000.0)
        yield Part(settings={"second": 2}, tables=[Table("t", ["a"], [[1]])])

    monkeypatch.setattr(run, "experiments", experiments)
    monkeypatch.setattr(run, "NOTES", ("of the paper",))
    found = reproduce("ties", quick=True, workers=3)
    assert asked == [Asked(10, quick=True, workers=3)]
    assert (found.name, found.published) == ("ties", "arXiv 2409.17431")
    assert list(found.settings) == ["first", "second"]
    assert [table.title for table in found.tables] == ["t"]
    assert found.notes == ["of a part", "of the paper"]
    assert -1000 < found.seconds < -900  # what is made once is not counted
    reproduce("ties", seeds=2)
    assert asked[-1] == Asked(2)
    with pytest.raises(ValueError, match=r"no paper is called .tie.; there are: bpo, compo, "):
        reproduce("tie")


def test_jobs_are_done_in_processes_as_in_one(capsys):
    ticks = []

    def ticker(description, total):
        ticks.append((description, total))
        return lambda: ticks.append(description)

    jobs = [(k, 2) for k in range(3)]
    for workers in (1, 2):
        assert Asked(3, workers=workers, ticker=ticker).in_processes("powers", pow, jobs) == [0, 1, 4]
    assert ticks == 2 * [("powers", 3), "powers", "powers", "powers"]
    assert Asked(5).at_most(3) == Asked(3).at_most(20) == Asked(3)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("name", "claims", "seeds"),
    [
        ("bpo", 15, 2),
        pytest.param("compo", 30, 2, marks=pytest.mark.slow),
        pytest.param("condition_po", 22, 1, marks=pytest.mark.slow),
        pytest.param("gradspo", 15, 1, marks=pytest.mark.slow),
        ("longvpo", 20, 1),
        pytest.param("lpo", 15, 1, marks=pytest.mark.slow),
        pytest.param("sopo", 40, 1, marks=pytest.mark.slow),
        pytest.param("ssapo", 40, 2, marks=pytest.mark.slow),
        ("symmpo", 30, 1),
        pytest.param("ties", 15, 2, marks=pytest.mark.slow),
    ],
)
def test_command_prints_verdicts_and_names_its_files(name, claims, seeds, tmp_path):
    folder = tmp_path / "out"
    answer = CliRunner().invoke(
        command, [name, "--quick", "--seeds", str(seeds), "--workers", "1", "--output", str(folder)]
    )
    assert answer.exit_code == 0, answer.output
    record = json.loads((folder / f"{name}.json").read_text())
    assert len(record["claims"]) >= claims
    words = answer.output.replace("│", " ").split()
    assert "verdicts mean nothing" in answer.output
    assert "inconclusive" in words
    for path in folder.iterdir():
        assert path.name in answer.output.replace("\n", "")
    assert {p.suffix for p in folder.iterdir()} == {".json", ".html", ".png", ".svg"}


def test_unknown_name_is_refused_with_the_choices():
    answer = CliRunner().invoke(command, ["tie"])
    assert answer.exit_code == 2
    assert "ties" in answer.output
    assert "bpo" in answer.output


def test_help_names_the_papers_and_their_seeds():
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "ties (arXiv 2409.17431)" in text
    assert "gradspo (OpenReview d6lIOnvOX2)" in text
    assert "10 ties" in text
