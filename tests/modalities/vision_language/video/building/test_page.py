"""Every command of docs/video_data.md runs, and the page names what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import transformers
from click.testing import CliRunner

from modalities.vision_language.video.building.film_runs import COLOURS, fields, film, read, said, server
from modalities.vision_language.video.building.test_reasoning import writer
from prefopt.cli.main import main
from prefopt.modalities.vision_language.video.build import COMMANDS
from prefopt.modalities.vision_language.video.building import anchored, reasoning

ROOT = Path(__file__).parents[5]
PAGE = (ROOT / "docs" / "video_data.md").read_text("utf-8")
SOURCES = ROOT / "src" / "prefopt" / "modalities" / "vision_language" / "video" / "building"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def dinov2(folder: Path) -> None:
    """A random model of images."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.Dinov2Model(
        transformers.Dinov2Config(**sizes, image_size=32, patch_size=16)
    ).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)


def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))
    dinov2(tmp_path / "dinov2-base")
    fields(tmp_path / "clips", list(COLOURS))
    for n in range(2):
        film(tmp_path / "films" / f"{n}.mp4", [(name, 11) for name in list(COLOURS)[n : n + 4]], fps=4)
    (tmp_path / "questions.py").write_text(blocks("python")[0])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "answer.jinja").write_text(blocks("jinja")[0])
    done = []

    def answering(body):
        if "JSON" in said(body):
            return writer(body)
        return "Which colour is it?" if "Write one question" in said(body) else writer(body)

    def spoken(body):
        text = answering(body)
        if text.startswith(("only", "unknown")) and "Answer a question about a video" in said(body):
            return re.sub(r"only (\w+)", r"It is \1.", text)
        return text

    with server(reply=spoken, known=None) as one:
        for line in "".join(blocks("bash")).replace("\\\n", " ").splitlines():
            words = shlex.split(re.sub(r"http://localhost:800[01]/v1", one.url, line))
            assert words[0] == "prefopt"
            if words[2] == "longvpo-1" and "--max_similarity" not in words:
                words += ["--max_similarity", "1"]  # of a random model
            found = CliRunner().invoke(main, words[1:])
            assert found.exit_code == 0, f"{line}\n{found.output}"
            output = words[words.index("-o") + 1]
            done.append((words[2], output, len(read(tmp_path / output))))
    assert [name for name, *_ in done] == ["longvpo-1", "longvpo-2", "longvpo-1", "longvpo-2"]
    assert all(count > 1 for *_, count in done)
    prompt = read(tmp_path / "calibrated")[0]["prompt"][0]["content"]
    assert prompt == "Which colour is the field that can be seen?\nAnswer in three words."


def test_the_page_names_every_option_that_decides_what_rows_are_made():
    plain = {"output", "limit", "batch_size", "max_new_tokens", "help", "temperature", "scene_frames"}
    for command in COMMANDS:
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in plain:
                assert f"--{parameter.name}" in PAGE, parameter.name


def test_the_page_names_every_reason():
    told = set(re.findall(r"`(\w+)`", PAGE.partition("## Why there is no row")[2]))
    sources = "".join(path.read_text("utf-8") for path in SOURCES.glob("*.py"))
    given = set(
        re.findall(r'UnusableItem\(\s*f?"(?:[^"\\]|\\.)*"(?:\s*f?"(?:[^"\\]|\\.)*")*,\s*"(\w+)"', sources)
    )
    given |= {*anchored.WHY, *reasoning.WHY}
    assert len(given) > 15
    assert given - {"missing_value", "several_clips", "no_video_file"} <= told


def test_the_page_names_every_template_and_what_it_is_told():
    table = PAGE.partition("## Prompts")[2].partition("## Why")[0]
    for templates, place in ((anchored.TEMPLATES, 0), (reasoning.TEMPLATES, 1)):
        rows = [line.split("|")[1:-1] for line in table.splitlines() if ".jinja`" in line]
        told = {
            cells[3 * place].strip(" `"): set(re.findall(r"`(\w+)`", cells[3 * place + 1]))
            for cells in rows
            if len(cells) == 5
        }
        assert told == {f"{name}.jinja": set(one.known) for name, one in templates.of.items()}
