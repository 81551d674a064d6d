"""`prefopt build contrast` with answers written by models, and every command of its page."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import transformers
from click.testing import CliRunner

import tiny_vision
from modalities.vision_language.building.build_runs import (
    TWO_PICTURES,
    build,
    built,
    fields,
    noisy,
    read,
    reasons,
    spec,
)
from modalities.vision_language.building.scribe import scribe
from prefopt.cli.main import main
from prefopt.modalities.vision_language.rows import load_pictured


def test_answers_for_both_pictures_are_written_where_rows_lack_them(tmp_path):
    rows = fields(tmp_path, ["red", "green", "blue"])
    with scribe() as server:
        done = build(tmp_path, rows, "shuffle", *spec(server.url), "--samples", 16)
        assert done.exit_code == 0, done.output
        asked = len(server.bodies)
        assert (
            "asked for now: captions 3 of 3, candidates 96 of 96, claims 6 of 6, answers 12 of 12"
            in done.output
        )
        again = build(tmp_path, rows, "shuffle", *spec(server.url), "--samples", 16)
        assert len(server.bodies) == asked
        assert "candidates 0 of 96" in again.output
    found = read(tmp_path / "out")
    assert len(found) == 3
    for one in found:
        other = Path(one["contrast_images"][0]).stem
        assert one["chosen"] == f"I see: It is {one['id']}."
        assert one["rejected"] == "I see: It is pink."
        assert one["contrast_chosen"] == f"I see: It is {other}."
        assert one["contrast_rejected"] == "I see: It is pink."
    assert len(load_pictured(str(tmp_path / "out" / "rows.jsonl"), wanted=TWO_PICTURES)) == 3


def test_a_process_that_is_killed_loses_nothing_and_repeats_nothing(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in fields(tmp_path, ["red", "green", "blue"])))

    def arguments(url: str, output: str) -> list[str]:
        given = [
            "build",
            "contrast",
            str(data),
            "--mode",
            "black",
            "-o",
            str(tmp_path / output),
            "--samples",
            "16",
        ]
        return [*given, *spec(url)]

    with scribe() as server:
        done = CliRunner().invoke(main, arguments(server.url, "whole"))
        assert done.exit_code == 0, done.output
        needed = len(server.bodies)
    with scribe(pause=0.2) as server:
        process = subprocess.Popen([sys.executable, "-m", "prefopt", *arguments(server.url, "parts")])
        journal = tmp_path / "parts" / "candidates.journal.jsonl"
        end = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 8) and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
        process.wait()
        kept = sum(
            path.read_bytes().count(b"\n") - 1 for path in (tmp_path / "parts").glob("*.journal.jsonl")
        )
        assert 0 < kept < needed
    with scribe() as server:
        done = CliRunner().invoke(main, arguments(server.url, "parts"))
        assert done.exit_code == 0, done.output
        assert len(server.bodies) == needed - kept
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


def test_models_in_folders_answer_too(tmp_path):
    """Random models write nothing that could be read, which is told row by row."""
    model = tiny_vision.save_tiny("llava", tmp_path / "llava")
    given = [f"--{role}={model}" for role in ("captioner", "answerer", "rewriter")]
    done = build(
        tmp_path, fields(tmp_path, ["red", "green"]), "black", *given, "--samples", 2, "--max_new_tokens", 4
    )
    assert done.exit_code == 1, done.output
    assert set(reasons(tmp_path).values()) <= {"unreadable_claims", "no_candidates", "no_caption"}
    # captions of two pictures and of black, of one size; candidates of them
    assert len(read(tmp_path / "out", "captions.journal")) == 1 + 3
    assert len(read(tmp_path / "out", "candidates.journal")) == 1 + 2 * 4


def test_templates_of_ones_own_are_asked_with(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "caption.jinja").write_text("Describe this picture, please")
    with scribe() as server:
        built(
            tmp_path, fields(tmp_path, ["red", "green"]), "shuffle", *spec(server.url), "--samples", 16, "--prompts", tmp_path / "own"
        )  # fmt: skip
        words = [str(body["messages"]) for body in server.bodies]
    assert sum("Describe this picture, please" in text for text in words) == 2


PAGE = (Path(__file__).parents[4] / "docs" / "vision_data.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def clip_vision(folder: Path) -> None:
    """A random image tower."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    transformers.CLIPVisionModel(config).save_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(folder)


def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "prefopt.modalities.vision_language.build.bounds", lambda given: (1.0, -1.0)
    )  # of a random tower
    clip_vision(tmp_path / "clip-vit-large")
    tiny_vision.save_tiny("llava", tmp_path / "llava")
    (tmp_path / "edits.py").write_text(
        next(text for text in blocks("python") if text.startswith("# edits.py"))
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "compose.jinja").write_text(blocks("jinja")[0])
    rows = noisy(tmp_path, 4)
    for n, one in enumerate(rows):
        one["chosen"][0]["content"] = f"a cat on the left {tiny_vision.WORDS[n + 7]}"
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))

    def reply(body: dict[str, Any]) -> str:
        asked = str(body["messages"])
        return '{"consistent": ["a"], "conflicting": ["b"]}' if "JSON" in asked else f"a dog {body['seed']}"

    done = []
    with scribe(reply=reply, known="qwen-vl") as server:
        for line in "".join(blocks("bash")).replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace("http://localhost:8000/v1", server.url))
            assert words[0] == "prefopt"
            if words[1] == "train":
                words += [f"output_dir=run-{len(done)}", "max_steps=1", "sample_prompts=0", "eval_size=0"]
            if "llava" in words and "--captioner" in words:
                words += ["--max_new_tokens", "4", "--samples", "2"]
            found = CliRunner().invoke(main, words[1:])
            assert found.exit_code == 0, f"{line}\n{found.output}"
            done.append(words[1:3])
    assert len(done) == 9
