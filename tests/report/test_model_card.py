from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefopt.report import write_model_card
from prefopt.report.model_card import hub_card
from report import synthetic_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic_run.write_run(tmp_path / "ties-run")


def edit_manifest(run: Path, **changes: Any) -> None:
    path = run / "record" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def card(run: Path) -> tuple[dict[str, Any], str]:
    text = write_model_card(run).read_text("utf-8")
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(front), body


def code(body: str) -> str:
    match = re.search(r"```python\n(.*?)```", body, re.S)
    assert match
    ast.parse(match.group(1))
    return match.group(1)


def test_front_matter_and_content(run: Path) -> None:
    front, body = card(run)
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-generation"
    assert {"prefopt", "dpo_rk", "arxiv:2409.17431"} <= set(front["tags"])
    assert "base_model" not in front  # world:text is no address on a hub
    for text in (
        "| Accuracy, held-out comparisons | 50.0% | 83.1% (95% interval 78.2% to 87.1%) |", "| `beta` | 0.3 |", "| `learning_rate` | 5e-05 |",
        "| Comparisons | 2,685 wins, 853 ties |", "| Rows dropped | 62 |", "@article{chen2024extending,", "| time | 5 min 12 s |",
        "KL to the reference, nats a sequence | 0 | 4.217 |", "displacement 61.8%", "https://arxiv.org/abs/2409.17431",
    ):  # fmt: skip
        assert text in body, text
    assert 'folder = "ties-run/model"' in code(body)
    assert "AutoModelForCausalLM.from_pretrained(folder)" in code(body)


def test_hub_names_become_links(run: Path) -> None:
    edit_manifest(
        run,
        model={"source": "org/base-1.7b", "class": "LlamaForCausalLM"},
        data={"source": "org/pairs", "examples": 5},
    )
    front, _ = card(run)
    assert (front["base_model"], front["base_model_relation"], front["datasets"]) == (
        "org/base-1.7b",
        "finetune",
        ["org/pairs"],
    )


def test_an_adapter_is_loaded_onto_the_base_that_peft_recorded(run: Path) -> None:
    (run / "model" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    front, body = card(run)
    assert (front["library_name"], front["base_model"], front["base_model_relation"]) == (
        "peft",
        "org/base",
        "adapter",
    )
    assert 'from_pretrained("org/base")' in code(body)
    assert "PeftModel.from_pretrained(base, folder)" in code(body)


@pytest.mark.parametrize(("peft", "rows", "absent"), [
    ({"r": 8, "bias": "all"}, ["| `lora_r` | 8 |", "| `peft` | bias: all, r: 8 |"], "| `lora_r` | 16 |"),
    ({"peft_type": "VERA"}, [r"| `peft` | peft\_type: VERA |"], "| `lora_r` |"),
])  # fmt: skip
def test_adapters_are_told_as_they_were(
    run: Path, peft: dict[str, Any], rows: list[str], absent: str
) -> None:
    """Not by the defaults of keys that say nothing here."""
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    config |= {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "peft": peft}
    (run / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    body = card(run)[1]
    assert all(row in body for row in rows)
    assert absent not in body


@pytest.mark.parametrize(
    ("name", "loader"),
    [("PeftModelForCausalLM", "AutoModelForCausalLM"), ("LlavaForConditionalGeneration", "LlavaForConditionalGeneration"),
     ("x; import os", "AutoModelForCausalLM"), (None, "AutoModelForCausalLM")],
)  # fmt: skip
def test_the_class_to_load(run: Path, name: str | None, loader: str) -> None:
    edit_manifest(run, model={"source": "m", "class": name})
    assert f"model = {loader}.from_pretrained(folder)" in code(card(run)[1])


def test_text_from_the_run_stays_in_its_table_cell_and_yaml_value(run: Path) -> None:
    odd = 'a | b\n---\n# c "d": [e] <script>'
    edit_manifest(run, run_name=odd, method=odd, title=odd, data={"source": odd, "examples": 1})
    front, body = card(run)
    assert front["tags"][2] == " ".join(odd.split())
    assert not re.search(r"^# c", body, re.M)
    assert not re.search(r"^---", body, re.M)
    assert r"| Source | a \| b --- # c" in body


@pytest.mark.parametrize(("method", "title", "tags"), [
    ("dpo", "", ["dpo"]),
    ("dpo_rk+0.2*sft", "", ["dpo_rk", "sft", "dpo"]),
    ("d3po", "Direct preference for denoising diffusion policy optimization", ["d3po", "dpo"]),
    ("diffusion_kto", "", ["diffusion_kto", "kto"]),
    ("simpo", "Simple preference optimization", ["simpo"]),
])  # fmt: skip
def test_tags_are_losses_and_their_family(run: Path, method: str, title: str, tags: list[str]) -> None:
    edit_manifest(run, method=method, title=title, paper=None)
    assert card(run)[0]["tags"] == ["prefopt", "preference-optimization", *tags]


def test_the_kind_of_an_adapter_is_a_tag(run: Path) -> None:
    (run / "model" / "adapter_config.json").write_text(json.dumps({"peft_type": "VERA"}))
    assert "vera" in card(run)[0]["tags"]


def test_a_path_above_the_run_is_no_address_on_a_hub(run: Path) -> None:
    """Wherever the card is written from."""
    edit_manifest(run, model={"source": "models/base"}, data={"source": "data/rows.jsonl", "examples": 5})
    assert {"base_model", "datasets"} <= card(run)[0].keys()
    for path in ("models/base", "data/rows.jsonl"):
        (run.parent / path).mkdir(parents=True)
    assert not {"base_model", "datasets"} & card(run)[0].keys()


def test_the_card_on_the_hub_is_for_those_who_have_the_model_alone(run: Path) -> None:
    source = {
        "model": {"source": "/home/me/models/base"},
        "data": {"source": "/home/me/rows.jsonl", "examples": 5},
    }
    edit_manifest(run, **source)
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "use_peft": True}), "utf-8")
    text = hub_card(run, "me/mine")
    assert not re.search(r"/home|report\.html|config\.yaml|ties-run", text)
    for part in (
        "`base` trained with",
        "| Source | rows.jsonl |",
        'from_pretrained("path/to/base")',
        'folder = "me/mine"',
    ):
        assert part in text, part
    assert "https://arxiv.org/abs/2409.17431" in text
    assert yaml.safe_load(text.split("---\n")[1])["model_name"] == "mine"
    merged = hub_card(run, "me/mine", "merged")
    assert "library_name: transformers" in merged
    assert "PeftModel" not in merged


def test_an_unfinished_or_empty_run_has_a_card_that_says_so(run: Path, tmp_path: Path) -> None:
    edit_manifest(run, status="running")
    assert "> Status of the run: running." in card(run)[1]
    empty = tmp_path / "empty"
    empty.mkdir()
    front, body = card(empty)
    assert front["library_name"] == "transformers"
    assert "Status of the run: unknown" in body
    code(body)
