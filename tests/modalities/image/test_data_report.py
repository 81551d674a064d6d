"""What the data report says about images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from modalities.image.picture_files import CAT, DOG, PAIR, PICK, picture, save
from prefopt.modalities.image.rows import load_image_comparisons


def hints(rows: list[dict[str, Any]]) -> str:
    return "\n".join(f"{hint.level}: {hint.text}" for hint in load_image_comparisons(rows).report.hints)


def test_the_report_counts_images() -> None:
    wide, grey = picture(3, (16, 8), "JPEG"), io.BytesIO()
    Image.new("L", (8, 8)).save(grey, "PNG")
    rows = [
        PAIR,
        PAIR | {"chosen_image": wide},
        PAIR | {"prompt": "a grey cat", "rejected_image": grey.getvalue()},
    ]
    report = load_image_comparisons(rows).report
    images = report.own["images"]
    assert images is not None
    assert {
        name: images[name] for name in ("count", "distinct", "formats", "modes", "sizes", "mixed_sizes")
    } == {
        **{"count": 6, "distinct": 4, "mixed_sizes": 1},
        "formats": {"PNG": 5, "JPEG": 1},
        "modes": {"RGB": 5, "L": 1},
        "sizes": {"8 x 8": 5, "16 x 8": 1},
    }
    assert images["megabytes"] == round(sum(map(len, (CAT, DOG, wide, grey.getvalue()))) / 1e6, 3)
    assert (images["width"]["max"], images["height"]["max"]) == (16, 8)
    assert (report.lengths["prompt"]["min"], report.lengths["prompt"]["max"]) == (5, 10)
    assert report.lengths["chosen"] is None
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict() | {
        "hints": [hint._asdict() for hint in report.hints]
    }
    assert "note: 1 of 3 pairs have images of different sizes" in hints(rows)


def test_many_sizes_are_listed_in_short() -> None:
    rows = [PAIR | {"chosen_image": picture(n, (n + 1, 5))} for n in range(12)]
    images = load_image_comparisons(rows).report.own["images"]
    assert images is not None
    assert next(iter(images["sizes"])) == "8 x 8"
    assert len(images["sizes"]) == 9
    assert sum(images["sizes"].values()) == 24


def test_repeats_and_conflicts_go_by_the_images_content(tmp_path: Path) -> None:
    save(tmp_path, cat=CAT)
    rows = [
        *(PAIR, PAIR | {"chosen_image": str(tmp_path / "cat.png")}),  # the same
        PAIR | {"chosen_image": DOG, "rejected_image": CAT},
        PAIR | {"prompt": "another"},
    ]
    report = load_image_comparisons(rows).report
    assert (report.duplicates, report.conflicts) == (1, 1)
    assert "1 pair(s) are judged in both orders" in hints(rows)


def test_size_as_a_shortcut() -> None:
    large = [PAIR | {"prompt": f"p{n}", "chosen_image": picture(n, (9, 9))} for n in range(25)]
    assert "warn: the chosen image is the larger one in 100% of the pairs" in hints(large)
    assert "the chosen image is the" not in hints(large[:10])
    assert "the chosen image is the" not in hints([row | {"label": "tie"} for row in large])
    small = [row | {"label": "lose"} for row in large]
    assert "warn: the chosen image is the smaller one in 100% of the pairs" in hints(small)


def test_other_hints() -> None:
    assert "1 caption(s) have more than 60 words" in hints([PAIR | {"prompt": "very " * 60 + "long"}, PAIR])
    assert "warn: column 'is_ties' is not read; did you mean 'is_tie'?" in hints([PAIR | {"is_ties": True}])
    assert "columns not read: artist" in hints([PAIR | {"artist": "x"}])
    assert "1 row(s) were lost by their chosen side" in hints([PAIR | {"label": "lose"}])
    assert hints([PICK | {"label_0": 0}]) == ""
    assert "1 of 1 scored wins (100.0%) go against" in hints(
        [PAIR | {"score_chosen": 1.0, "score_rejected": 2.0}]
    )
