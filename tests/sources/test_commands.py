"""`prefopt check` and `prefopt build` as a user runs them: in a process of their own, by exit code, output and files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from modalities.image.picture_files import CAT, COW, DOG, picture, save, write
from prefopt.cli.build import command as build
from prefopt.cli.check import command as check

PAIRS = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    {"prompt": "The sky is", "chosen": " [red] at dusk.", "rejected": " red.", "label": "tie"},
    {"prompt": "The sky is", "chosen": "", "rejected": " red."},
]
CANDIDATES = [
    {"prompt": f"{n} + 1 =", "candidates": [{"text": f" {m}", "score": -abs(m - n - 1)} for m in range(4)]}
    for n in range(3)
]


def prefopt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, *rest = arguments
    code = f"from prefopt.cli.{command} import command; command(prog_name='prefopt {command}')"
    return subprocess.run(
        [sys.executable, "-c", code, *rest],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
    )


def inside(folder: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    """The same command in this process, which saves the seconds that imports take."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return CliRunner().invoke({"check": check, "build": build}[arguments[0]], arguments[1:])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer of single characters, saved as a model's would be."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(n) for n in range(32, 127)]
    backend = Tokenizer(
        models.WordLevel({"<eos>": 0, **{c: n for n, c in enumerate(characters, 1)}}, unk_token="<eos>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)
    return folder


def test_check_tells_and_saves(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", PAIRS)
    done = prefopt(tmp_path, "check", "pairs.jsonl", "--method", "dpo", "--output", "out/check")
    assert done.returncode == 0, done.stderr
    for text in (
        "pairs.jsonl: pairs of text; columns prompt, chosen, rejected, label",
        "lengths in characters",
        "dropped: empty_side",
        "warning: dpo has no tie term and 1 comparisons are ties: choose ties=drop, as_win or soft_half",
        "dropped line 3 (empty_side): chosen is empty",
    ):
        assert text in done.stdout
    report = json.loads((tmp_path / "out/check/data.json").read_text())
    assert (report["rows"], report["examples"], report["comparisons"]["ties"]) == (3, 2, 1)
    [drop] = read(tmp_path / "out/check/dropped.jsonl")
    assert (drop["row"], drop["reason"]) == (3, "empty_side")


def test_check_prints_json_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", PAIRS)
    done = prefopt(tmp_path, "check", "pairs.jsonl", "--json", "--output", "out")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout) == json.loads((tmp_path / "out/data.json").read_text())


def test_check_with_a_model_counts_tokens_and_shows_the_first_pair(
    tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "pairs.jsonl", PAIRS)
    model = ("pairs.jsonl", "--model", tokenizer)
    done = inside(tmp_path, "check", *model, "--max-length", "20", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    assert "lengths in tokens" in done.stdout
    assert "truncated chosen" in done.stdout
    assert "⟦ |b|l|u|e|.|<eos>⟧" in done.stdout
    report = json.loads(inside(tmp_path, "check", *model, "--json", monkeypatch=monkeypatch).stdout)
    assert report["lengths"]["prompt"]["max"] == len("The sky is")
    assert report["lengths"]["chosen"]["max"] == len(" [red] at dusk.") + 1


def test_check_of_single_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "s.jsonl", [{"prompt": "a", "completion": "b" * n, "label": n > 2} for n in range(1, 6)])
    done = inside(tmp_path, "check", "s.jsonl", "--method", "kto", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    assert "single labelled samples of text" in done.stdout
    assert "desirable minus undesirable: +2.5 characters on average" in done.stdout
    assert "set desirable_weight between" in done.stdout


def image_folder(folder: Path) -> None:
    """Three pairs, one of them a tie and one with a damaged image, in the layout of an image folder."""
    save(folder, cat=CAT, dog=DOG, cow=COW[:-30], pig=picture(4, (16, 8)))
    damaged = bytearray(picture(5))
    damaged[len(damaged) // 2] ^= 0xFF
    save(folder, emu=bytes(damaged))
    rows = [
        {"chosen_file_name": f"{a}.png", "rejected_file_name": f"{b}.png", "prompt": "a cat", "label": label}
        for a, b, label in (
            ("cat", "dog", "win"),
            ("pig", "dog", "tie"),
            ("cow", "dog", "win"),
            ("emu", "cat", "win"),
        )
    ]
    write(folder / "metadata.jsonl", rows)


def test_check_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path / "pics")
    done = inside(tmp_path, "check", "pics", "--method", "dpo", "--output", "out", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    table = re.sub(r"[│┃ ]+", " ", done.stdout)
    for text in (
        "metadata.jsonl: pairs of images; columns chosen_file_name, rejected_file_name, prompt, label",
        "dropped: broken_image 2",
        "images 4, of which 3 distinct",
        "sizes 8 x 8 (3), 16 x 8 (1)",
        "modes RGB (4)",
        "formats PNG (4)",
        "width 8 to 16 pixels, median 8",
        "caption 5 5 5 5 5",
        "note: 1 of 2 pairs have images of different sizes",
        "warning: dpo has no tie term and 1 comparisons are ties",
        "dropped line 3 (broken_image): chosen_file_name: cow.png is damaged or cut short",
    ):
        assert text in table
    assert "rejected" not in table[table.index("lengths in") :]
    report = json.loads((tmp_path / "out/data.json").read_text())
    assert report["images"]["mixed_sizes"] == report["comparisons"]["ties"] == 1
    assert [drop["row"] for drop in read(tmp_path / "out/dropped.jsonl")] == [3, 4]


def test_a_quick_check_of_images_decodes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path / "pics")
    done = inside(tmp_path, "check", "pics", "--quick", "--json", monkeypatch=monkeypatch)
    assert json.loads(done.stdout)["dropped"] == {"broken_image": 1}


def test_tokens_of_images_cannot_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path / "pics")
    done = inside(tmp_path, "check", "pics", "--model", "any", monkeypatch=monkeypatch)
    assert done.exit_code == 1
    assert "pics holds images: --model counts the tokens of texts; leave it out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pair.jsonl"], "Error: no file or folder pair.jsonl; did you mean pairs.jsonl?"),
        (["corrupt.jsonl"], "Error: corrupt.jsonl, line 2: not valid JSON"),
        (["empty.jsonl"], "Error: empty.jsonl is empty"),
        (["columns.jsonl"], "needed chosen and rejected"),
        (["pairs.jsonl", "--split", "test"], "Error: unknown split 'test'"),
        (["pairs.jsonl", "--method", "dpo_rrk"], "Error: unknown objective 'dpo_rrk' (did you mean dpo_rk"),
        (["pairs.jsonl", "--model", "."], "Error: no tokenizer could be loaded from ."),
        (["owner/name"], "as a hub data set it could not be loaded either"),
    ],
)
def test_bad_input_is_one_plain_line_and_exit_code_1(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "pairs.jsonl", PAIRS)
    write(tmp_path / "columns.jsonl", [{"question": "a"}])
    (tmp_path / "corrupt.jsonl").write_text(json.dumps(PAIRS[0]) + '\n{"prompt"\n')
    (tmp_path / "empty.jsonl").touch()
    done = inside(tmp_path, "check", *arguments, monkeypatch=monkeypatch)
    assert done.exit_code == 1
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = prefopt(tmp_path, "check", "pairs.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: no file or folder pairs.jsonl\n"


def test_build_makes_pairs_that_check_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "candidates.jsonl", CANDIDATES)
    done = prefopt(
        tmp_path, "build", "extremes-and-closest", "candidates.jsonl", "--output", "new/pairs.jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "new/pairs.jsonl: 3 wins and 3 ties from 3 rows\n"
    rows = read(tmp_path / "new/pairs.jsonl")
    assert [row["label"] for row in rows] == ["win", "tie"] * 3
    assert os.listdir(tmp_path / "new") == ["pairs.jsonl"]
    checked = json.loads(
        inside(tmp_path, "check", "new/pairs.jsonl", "--json", monkeypatch=monkeypatch).stdout
    )
    assert (checked["comparisons"]["wins"], checked["comparisons"]["ties"], checked["dropped"]) == (3, 3, {})


def test_build_does_not_overwrite_unless_forced(tmp_path: Path) -> None:
    write(tmp_path / "candidates.jsonl", CANDIDATES)
    (tmp_path / "pairs.jsonl").write_text("precious")
    build = ("build", "threshold", "candidates.jsonl", "-o", "pairs.jsonl")
    done = prefopt(tmp_path, *build, "--eps", "0.5")
    assert done.returncode == 1
    assert "pairs.jsonl is there already; give --force" in done.stderr
    assert prefopt(tmp_path, *build, "--eps", "-1", "--force").returncode == 1
    assert (tmp_path / "pairs.jsonl").read_text() == "precious"
    assert prefopt(tmp_path, *build, "--eps", "0.5", "--pairs", "adjacent", "--force").returncode == 0
    assert len(read(tmp_path / "pairs.jsonl")) == 9


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["threshold", "candidates.jsonl", "-o", "p.jsonl"], 2, "Missing option '--eps'"),
        (["ranks", "candidates.jsonl", "-o", "p.jsonl"], 1, "Error: ranks_to_pairs needs a number `rank`"),
        (["ranks", "candidates.jsonl", "-o", "p.csv"], 1, "let the name end in .jsonl"),
        (
            ["all-correct", "wrong.jsonl", "-o", "p.jsonl"],
            1,
            "no pair could be made (0 wins and 0 ties from 1 rows; 1 all_wrong)",
        ),
        (["all-correct", "nowhere.jsonl", "-o", "p.jsonl"], 1, "no file or folder nowhere.jsonl"),
    ],
)
def test_build_that_cannot_be_done_writes_nothing(
    tmp_path: Path, arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "candidates.jsonl", CANDIDATES)
    wrong = [{"text": "a", "correct": False}, {"text": "b", "correct": False}]
    write(tmp_path / "wrong.jsonl", [{"prompt": "p", "candidates": wrong}])
    done = inside(tmp_path, "build", *arguments, monkeypatch=monkeypatch)
    assert done.exit_code == code
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)
    assert sorted(os.listdir(tmp_path)) == ["candidates.jsonl", "wrong.jsonl"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise OSError("disk full")

    write(tmp_path / "candidates.jsonl", CANDIDATES)
    monkeypatch.setattr(os, "fsync", broken)
    done = inside(
        tmp_path,
        "build",
        "extremes-and-closest",
        "candidates.jsonl",
        "-o",
        "p.jsonl",
        monkeypatch=monkeypatch,
    )
    assert done.exit_code == 1
    assert "disk full" in done.output
    assert os.listdir(tmp_path) == ["candidates.jsonl"]


def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands that were given one output at the same time."""
    write(tmp_path / "candidates.jsonl", CANDIDATES)
    fsync = os.fsync

    def other_first(handle: int) -> None:
        (tmp_path / "p.jsonl").write_text("of the other\n")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", other_first)
    given = ["build", "extremes-and-closest", "candidates.jsonl", "-o", "p.jsonl"]
    done = inside(tmp_path, *given, monkeypatch=monkeypatch)
    assert done.exit_code == 1
    assert "File exists" in done.output
    assert "--force" in done.output
    assert (tmp_path / "p.jsonl").read_text() == "of the other\n"
    assert sorted(os.listdir(tmp_path)) == ["candidates.jsonl", "p.jsonl"]
    assert inside(tmp_path, *given, "--force", monkeypatch=monkeypatch).exit_code == 0
    assert (tmp_path / "p.jsonl").read_text() != "of the other\n"


def test_defining_the_commands_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, prefopt.cli.check, prefopt.cli.build\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy', 'rich', 'pyarrow', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_build_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = "import sys, prefopt.sources.mining\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
