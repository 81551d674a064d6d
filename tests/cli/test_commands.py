"""The commands beside `train`, as a user runs them: in a process of their own."""

from __future__ import annotations

import json
import random
import time

import pytest
from click.testing import CliRunner
from PIL import Image

from conftest import ROWS
from prefopt.cli.check import command as check
from processes import assert_plain_error, fresh_prefopt, prefopt


def candidates_file(folder):
    rows = [
        {"prompt": f"Sort: {n}", "candidates": [{"text": f" {k}", "score": k / 4} for k in (4, 2, 1, 0)]}
        for n in range(3)
    ]
    path = folder / "candidates.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_takes_less_than_a_second(tmp_path):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        assert fresh_prefopt(tmp_path, "--help").returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0  # half a second on an idle machine; this one may run other tests


@pytest.mark.parametrize(
    "name", ["train", "check", "build", "compare", "reproduce", "methods", "demo", "report"]
)
def test_every_command_explains_itself(name, tmp_path):
    done = fresh_prefopt(tmp_path, name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: prefopt {name}") or f"prefopt {name}" in done.stdout


def test_methods(tmp_path):
    everything = prefopt(tmp_path, "methods")
    assert everything.returncode == 0
    assert all(name in everything.stdout for name in ("dpo_rk", "diffusion_dpo", "kto", "bpo"))
    one = prefopt(tmp_path, "methods", "dpo_rk")
    assert one.returncode == 0
    assert "nu" in one.stdout
    assert_plain_error(prefopt(tmp_path, "methods", "dpo_kr"), "dpo_kr", "dpo_rk")


def test_check_counts_what_is_there(tiny_model, rows_file, tmp_path):
    data = rows_file([*ROWS, {"prompt": "Sort: a", "chosen": " a", "rejected": ""}])
    done = prefopt(tmp_path, "check", data, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"{len(ROWS) + 1}" in done.stdout
    assert "empty" in done.stdout
    dropped = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == 1
    report = json.loads(prefopt(tmp_path, "check", data, "--json").stdout)
    assert report == json.loads((tmp_path / "out" / "data.json").read_text())


def test_check_reads_what_the_method_reads(rows_file, tmp_path):
    """Its further answers, under text or pictures: missing ones are an error, and those that are there are counted and read."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    told = {}
    for given in ("plain", "text", "pictures"):
        beside = (
            {}
            if given == "plain"
            else {"reference": " a"} | ({"image": "red.png"} if given == "pictures" else {})
        )
        told[given] = CliRunner().invoke(
            check, [str(rows_file([row | beside for row in ROWS])), "--method", "tpo"]
        )
    assert isinstance(told["plain"].exception, SystemExit)
    assert "has no column reference, which this objective reads" in told["plain"].output
    for given in ("text", "pictures"):
        assert told[given].exit_code == 0, told[given].output
        assert "not read" not in told[given].output


def test_check_cuts_as_a_run_would(tiny_model, rows_file):
    """A prompt that fills the limit loses its row, or its beginning."""
    data = str(
        rows_file([{"prompt": "Sort: pear fig apple pear", "chosen": " fig", "rejected": " pear"}] * 2)
    )
    given = [data, "--model", str(tiny_model), "--max-length", "4"]
    dropped = CliRunner().invoke(check, given)
    assert dropped.exit_code == 1
    assert "the prompt alone has" in dropped.output
    cut = CliRunner().invoke(check, [*given, "--truncation-mode", "keep_end"])
    assert cut.exit_code == 0, cut.output
    assert "⟦" in cut.output


def test_check_explains_the_plan(tiny_model, rows_file, tmp_path):
    rng = random.Random(0)
    words = " ".join(rng.choices(["fig", "pear", "red"], k=30))
    rows = [{"prompt": f"Sort: {n} {words}", "chosen": f" {n}", "rejected": f" {n} {n}"} for n in range(4)]
    done = prefopt(tmp_path, "check", rows_file(rows), "--model", tiny_model, "--plan", "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = {
        line.split("│")[1].strip(): [x.strip().replace(",", "") for x in line.split("│")[2:]]
        for line in lines if line.startswith("│") and line.count("│") == 6
    }  # fmt: skip
    plain, shared = table["one padded row an item"], table["prompts shared, packed"]
    assert int(shared[0]) < 0.7 * int(plain[0])
    assert shared[2] == plain[2]  # scored places are the same
    assert float(plain[3]) == 1.0 > float(shared[3])
    assert any("row 1:" in line and "shared" in line for line in lines)
    assert_plain_error(prefopt(tmp_path, "check", rows_file(rows), "--plan"), "--model")


def test_build_makes_pairs_that_train_reads(tiny_model, own_cache, tmp_path):
    given = [candidates_file(tmp_path), "--output", "pairs.jsonl"]
    done = prefopt(tmp_path, "build", "extremes-and-closest", *given)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert {row["chosen"].strip() for row in rows if row.get("label") != "tie"} == {"4"}
    assert any(row.get("label") == "tie" for row in rows)
    done = prefopt(tmp_path, "train", "dpo_rk", "--model", tiny_model, "--data", "pairs.jsonl", "max_steps=1",
                   "sample_prompts=0", "eval_size=0")  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # starts the command a dozen times
def test_compare_goes_on(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS * 2)
    given = ["--model", tiny_model, "--data", data, "max_steps=2", "sample_prompts=2", "sample_max_new_tokens=4",
             "eval_size=2", "ties=drop", "--output", "out", "--workers", "2"]  # fmt: skip
    done = prefopt(tmp_path, "compare", "dpo,ipo", *given)
    assert done.returncode == 0, done.stderr
    assert "dpo" in done.stdout
    assert "ipo" in done.stdout
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "ipo" in page
    runs = {path.name for path in (tmp_path / "out" / "runs").iterdir() if path.is_dir()}
    assert runs == {"dpo-beta-default-seed-0", "ipo-beta-default-seed-0"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results) == 2
    written = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("*") if path.is_file()
    }
    again = prefopt(tmp_path, "compare", "dpo,ipo", *given)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())  # finished runs are kept
    assert_plain_error(prefopt(tmp_path, "compare", "dpo,ipoo", *given), "ipoo")
