"""What users install: the bounds of its libraries, the wheel and the source archive."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import BytesParser
from pathlib import Path
from site import getsitepackages

import pytest

from prefopt.cli.main import COMMANDS
from prefopt.version import __version__

ROOT = Path(__file__).parents[1]


def script():
    """.ci/oldest.py as a module."""
    spec = importlib.util.spec_from_file_location("oldest", ROOT / ".ci" / "oldest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OLDEST = script()


def test_the_oldest_versions_are_those_of_pyproject():
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    assert OLDEST.FILE.read_text("utf-8") == OLDEST.text(pyproject), "run `make oldest`"


def test_bounds_are_found_wherever_a_library_is_asked_for():
    text = """[project]
dependencies = ["torch>=2.6", "rich"]
[project.optional-dependencies]
video = ["av>=15"]
test = ["prefopt[video]", "transformers[serving]>=5.0"]
dev = ["ruff>=0.8"]
"""
    assert OLDEST.oldest(text) == {"torch": "2.6", "av": "15", "transformers": "5.0"}


def test_two_lower_bounds_of_one_library_are_refused():
    text = """[project]
dependencies = ["av>=14"]
[project.optional-dependencies]
video = ["av>=15"]
"""
    with pytest.raises(ValueError, match="av>=15 and for av>=14"):
        OLDEST.oldest(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source archive, and the wheel that is made from it: what is published."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def build(source: Path, folder: Path, *more: str) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, *more, source]
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def plain_environment(**more: str) -> dict[str, str]:
    """Without this source tree on the path."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | more


def in_wheel(folder: Path) -> dict[str, bytes]:
    """Content by path."""
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def in_archive(folder: Path) -> set[str]:
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers()}


def tracked(*places: str) -> set[str]:
    """Files of the source tree that belong to it."""
    return {
        path.relative_to(ROOT).as_posix()
        for place in places
        for path in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_the_wheel_holds_the_package_and_nothing_else(built):
    wheel = in_wheel(built)
    inside = {name for name in wheel if not name.startswith(f"prefopt-{__version__}.dist-info/")}
    assert inside == {name.removeprefix("src/") for name in tracked("src/prefopt")}
    assert {"prefopt/py.typed", "prefopt/report/templates/page.html.j2"} <= inside
    told = BytesParser().parsebytes(wheel[f"prefopt-{__version__}.dist-info/METADATA"])
    assert (told["Name"], told["Version"], told["License-Expression"]) == (
        "prefopt",
        __version__,
        "Apache-2.0",
    )
    assert f"prefopt-{__version__}.dist-info/licenses/LICENSE" in wheel


def test_the_source_archive_holds_what_its_tests_need(built):
    names = in_archive(built)
    files = (
        "pyproject.toml",
        "Makefile",
        "mkdocs.yml",
        "constraints.txt",
        "constraints-oldest.txt",
        "README.md",
        "LICENSE",
    )
    wanted = tracked(
        "src", "tests", "docs", "examples", "benchmarks", ".ci", *files, "CHANGELOG.md", "CONTRIBUTING.md"
    )
    assert wanted <= names
    assert names - wanted <= {"PKG-INFO", ".gitignore", ".pre-commit-config.yaml"}


def test_the_wheel_of_the_source_tree_is_that_of_the_archive(built, tmp_path):
    assert in_wheel(build(ROOT, tmp_path, "--wheel")) == in_wheel(built)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, symlinks=True, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # folders named in such a file are not searched for others, so that this source tree stays out
    (site / "libraries.pth").write_text("".join(f"{path}\n" for path in {*getsitepackages()}))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin" / "python",
        "install",
        "--quiet",
        "--no-deps",
    ]
    wheel = next(built.glob("*.whl"))
    subprocess.run([*command, "--no-index", "--ignore-installed", wheel], check=True, env=plain_environment())
    return folder / "bin"


def run(program: Path, *words: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [program, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=plain_environment(**environment),
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_needs_no_source_tree(installed, tmp_path):
    where = run(installed / "python", "-c", "import prefopt; print(prefopt.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert run(installed / "prefopt", "--version", cwd=tmp_path) == f"prefopt, version {__version__}\n"
    assert "dpo_rk" in run(installed / "prefopt", "methods", cwd=tmp_path)
    for name in COMMANDS:
        assert "Usage: prefopt" in run(installed / "prefopt", name, "--help", cwd=tmp_path)


@pytest.mark.slow
def test_an_installed_wheel_runs_the_demo(installed, tmp_path):
    """With the world's model made anew: pages, templates and all."""
    told = run(installed / "prefopt", "demo", cwd=tmp_path, PREFOPT_CACHE=str(tmp_path / "cache"))
    assert "reward of its answers" in told
    assert {"model", "report.html", "README.md"} <= {p.name for p in (tmp_path / "runs" / "demo").iterdir()}
