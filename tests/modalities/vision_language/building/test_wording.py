"""Templates: replaced one by one, and refused where they could not do their work."""

from __future__ import annotations

import pytest

from prefopt.modalities.vision_language.building.wording import CONTRAST, wording

KNOWN = {name: template.known for name, template in CONTRAST.of.items()}
TOLD = {
    "prompt": "What {{ is }} it?",
    "caption": "A cat.",
    "answers": ["A dog.", "A cat."],
    "claims": ["It is a cat."],
}


def test_every_template_of_the_package_tells_what_it_is_told():
    words = wording()
    for name, known in KNOWN.items():
        text = words.of(name, **{key: TOLD[key] for key in known})
        for key in known:
            for part in TOLD[key] if isinstance(TOLD[key], list) else [TOLD[key]]:
                assert part in text
    assert "consistent" in words.of("claims", **{key: TOLD[key] for key in KNOWN["claims"]})


def test_one_is_replaced_and_the_others_stay(tmp_path):
    (tmp_path / "caption.jinja").write_text("What do you see?\n")
    words = wording(tmp_path)
    assert words.of("caption") == "What do you see?"
    assert words.texts["claims"] == wording().texts["claims"]
    assert words.digest != wording().digest


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "claims",
            "{{ captoin }} {{ answers }} {{ caption }}",
            "uses captoin: did you mean 'caption'|uses captoin",
        ),
        ("claims", "{{ caption }}", "leaves out answers"),
        ("compose", "{{ prompt }}", "leaves out claims"),
        ("compose", "{% for x in claims %}", "line 1"),
        ("caption", "{{ prompt }}", "it knows nothing"),
    ],
)
def test_a_template_that_cannot_work_is_refused(tmp_path, name, text, said):
    (tmp_path / f"{name}.jinja").write_text(text)
    with pytest.raises(ValueError, match=said):
        wording(tmp_path)


def test_a_folder_without_templates_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none of caption.jinja, claims.jinja, compose.jinja"):
        wording(tmp_path)
    with pytest.raises(FileNotFoundError, match="--prompts"):
        wording(tmp_path / "nowhere")
