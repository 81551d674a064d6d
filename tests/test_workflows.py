"""The workflows run what the Makefile has, on the Pythons and the versions that pyproject.toml promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = {
    found[1]
    for classifier in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
}


def jobs(workflow: Path) -> dict[str, dict]:
    return yaml.safe_load(workflow.read_text("utf-8"))["jobs"]


def steps(workflow: Path) -> list[dict]:
    return [step for job in jobs(workflow).values() for step in job["steps"]]


def matrix() -> list[tuple[str, str]]:
    """(Python, target) of every job of the tests."""
    stated = jobs(ROOT / ".github" / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]
    product = [(python, target) for python in stated["python"] for target in stated["target"]]
    return product + [(one["python"], one["target"]) for one in stated["include"]]


def targets() -> set[str]:
    """What `make` can be asked for: phony targets that have a rule."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())
    return phony & set(re.findall(r"^([a-z-]+):", makefile, re.M))


def test_there_are_workflows_for_tests_documentation_and_releases():
    assert [workflow.name for workflow in WORKFLOWS] == ["ci.yml", "docs.yml", "release.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda w: w.name)
def test_every_command_is_a_target(workflow: Path):
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        asked = re.fullmatch(r"make (\S+|\$\{\{ matrix\.target \}\})", command)
        assert asked, f"{command!r} cannot be run elsewhere: make it a target"
        named = {target for _, target in matrix()} if "matrix" in asked[1] else {asked[1]}
        assert named <= targets(), f"the Makefile has no target {named - targets()}"


def test_every_python_that_is_promised_is_tested_and_the_oldest_versions_on_the_oldest():
    assert {python for python, target in matrix() if target == "test"} == PYTHONS
    ordered = sorted(PYTHONS, key=lambda python: int(python.split(".")[1]))
    assert {python for python, target in matrix() if target == "test-oldest"} == {ordered[0]}
    assert {python for python, target in matrix() if target == "test-newest"} == {ordered[-1]}
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    assert requires == f">={ordered[0]}"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda w: w.name)
def test_workflows_may_no_more_than_they_need(workflow: Path):
    text = workflow.read_text("utf-8")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert "secrets." not in text  # the index and the pages trust the workflow
    for name, job in jobs(workflow).items():
        assert "timeout-minutes" in job, name
        if "write" in job.get("permissions", {}).values():  # never where code of the repository runs
            assert not [step for step in job["steps"] if "run" in step], name
            assert "environment" in job, name
    assert all("@" in step["uses"] for step in steps(workflow) if "uses" in step)


def made(target: str, *options: str) -> str:
    """What make would do."""
    return subprocess.run(
        ["make", "--dry-run", "--always-make", target, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize(
    ("target", "torch", "limits"),
    [
        ("suite", "torch==2.13.0", "-c constraints.txt "),
        ("test-oldest", "torch==2.6", "-c constraints-oldest.txt "),
        ("test-newest", "torch", ""),
    ],
)
def test_what_is_installed_for_the_suite(target: str, torch: str, limits: str):
    said = made(target)
    assert re.search(rf"pip install --quiet {re.escape(torch)}$", said, re.M)
    assert re.search(rf'pip install --quiet +{re.escape(limits)} *-e "\.\[dev\]"', said)
    assert 'pytest -m "not slow" -n 2' in said


@pytest.mark.parametrize(("tag", "passes"), [("v0.0.0", False), (None, False), ("", True)])
def test_a_tag_is_that_of_the_version(tag: str | None, passes: bool):
    from prefopt.version import __version__

    given = {} if tag is None else {"TAG": tag or f"v{__version__}"}
    ended = subprocess.run(
        [sys.executable, ROOT / ".ci" / "tagged.py"],
        env={k: v for k, v in os.environ.items() if k != "TAG"} | given,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode == 0) == passes
    assert passes or f"the tag is v{__version__}; given {tag}" in ended.stderr
