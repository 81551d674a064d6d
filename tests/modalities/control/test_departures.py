"""Where a reading departs from its condition, as pixels."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from modalities.control import synthetic_run
from prefopt.modalities.control.report.departures import ADDED, MISSING, drawn, kind_of


def grid(*rows: str, colours: dict[str, tuple[int, int, int]]) -> Image.Image:
    return Image.fromarray(np.array([[colours[c] for c in row] for row in rows], dtype=np.uint8))


def marked(given: Image.Image, found: Image.Image, side: int) -> tuple[np.ndarray, str]:
    shown, kind = drawn(given, found, side)
    data = io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))
    return np.asarray(Image.open(data).convert("RGB")).astype(int), kind


def test_missing_and_added_edges_have_their_colours() -> None:
    colours = {".": (0, 0, 0), "#": (255, 255, 255)}
    out, kind = marked(grid("##.", colours=colours), grid("#.#", colours=colours), 3)
    assert kind == "edges"
    assert out[0, 1].tolist() == list(MISSING)
    assert out[0, 2].tolist() == list(ADDED)
    assert out[0, 0].max() - out[0, 0].min() == 0


def test_a_thin_edge_survives_being_shrunk() -> None:
    given = np.zeros((1024, 1024, 3), dtype=np.uint8)
    given[:, 512] = 255
    shown, _ = marked(Image.fromarray(given), Image.new("RGB", (1024, 1024)), 256)
    row = shown[128]
    nearest = np.abs(row - np.array(MISSING)).sum(-1).min()
    assert shown.shape[:2] == (256, 256)
    assert nearest < 60


def test_darker_and_brighter_are_told_apart_by_how_much() -> None:
    colours = {"a": (100,) * 3, "b": (110,) * 3, "c": (200,) * 3, "d": (20,) * 3}
    out, kind = marked(grid("aaaa", colours=colours), grid("abcd", colours=colours), 4)
    assert kind == "amounts"
    same, little, brighter, darker = out[0]
    assert brighter.tolist() == list(ADDED)
    assert darker.tolist() == list(MISSING)
    assert np.ptp(same) == 0
    assert 0 < np.ptp(little) < np.ptp(brighter)


def test_wrong_classes_keep_their_colour_and_get_an_outline() -> None:
    colours = {"k": (0, 0, 0), "r": (200, 0, 0), "g": (0, 200, 0)}
    out, kind = marked(grid("rrrk", "rrrk", colours=colours), grid("rrgk", "rrrk", colours=colours), 160)
    assert kind == "classes"
    assert out.shape == (80, 160, 3)  # 40 a pixel
    assert out[20, 100].tolist() == [0, 200, 0]
    assert out[20, 79].max() < 30  # left of it
    assert out[60, 20].min() > 150  # agrees: pale
    assert out[60, 20, 0] > out[60, 20, 1] + 20  # and still red


def test_equal_maps_show_no_departure() -> None:
    for kind in ("edges", "classes", "amounts"):
        same = synthetic_run.draw(synthetic_run.layout(48, 0, 0.0), kind)  # type: ignore[arg-type]
        out, found = marked(same, same, 48)
        assert found == kind
        assert out.min() > 100
    assert kind_of(*(np.asarray(same).astype(np.int16),) * 2) == "amounts"
