"""Every method for images with text through whole runs on a tiny model: it begins where its formula says, and learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import prefopt
import tiny_vision
from modalities.image.image_runs import column
from modalities.vision_language.vision_runs import rows_of, said, train, written
from prefopt.config import ConfigError

LOG2 = math.log(2)
MORE = {
    "contrast_rejected": said("a dog"),
    "revised": said("a red dog"),
    "auxiliary_prompt": [{"role": "user", "content": "what is red ?"}],
    "auxiliary_response": said("a cat"),
}
"""Columns that some objectives read beside SymMPO's."""


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision.save_tiny("llava", tmp_path_factory.mktemp("llava"))


RUNS = [
    ("symmpo", {}, 4 * LOG2),
    ("symmpo", {"response_weight": 0.0}, 3 * LOG2),
    ("svco", {}, 2 * LOG2),
    ("opa_dpo", {}, (2 + 2 * 0.2 + 2) * LOG2),
    ("vdpo", {"alpha": 0.5}, None),  # guidance is there from the start
    ("povid", {"contrast_image": "noise"}, LOG2),
    ("ha_dpo", {"auxiliary_weight": 0.5}, None),
    ("chip", {"contrast_image": "noise"}, LOG2),
]
MORE_RUNS = [
    ("symmpo", {"dpo_on_contrast": True, "average": True}, 5 * LOG2),
    ("mdpo", {}, 3 * LOG2),
    ("mfpo", {"contrast_image": "noise"}, 3 * LOG2),
    ("vdpo", {"alpha": 0.0, "prior": "reference", "image_weight": 0.5}, 1.5 * LOG2),
    ("ha_dpo", {}, LOG2),
    ("chip", {"combine": "separate"}, 2 * LOG2),
    ("chip", {"kappa": 0.0, "reference": "cached"}, LOG2),
    ("ddpo", {}, LOG2),
    ("mpo", {}, None),
    ("dpo+svco", {}, 3 * LOG2),
]
"""Other settings of the same, and methods whose like is above."""


@pytest.mark.parametrize(
    ("name", "options", "start"),
    [*RUNS, *(pytest.param(*run, marks=pytest.mark.slow) for run in MORE_RUNS)],
    ids=lambda x: str(x) if isinstance(x, str) else "-".join(x) if isinstance(x, dict) else "",
)
def test_method(name, options, start, llava, own_cache, tmp_path):
    rows = rows_of(tmp_path, **MORE)
    if options.get("response_weight") == 0 or name == "svco":
        for row in rows:
            del row["rejected"]
    steady = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0, "warmup_steps": 0, "logging_steps": 1}
    result = train(
        name, llava, written(tmp_path, rows), tmp_path / "run",
        **steady, **options, max_steps=4, per_device_train_batch_size=4,
    )  # fmt: skip
    losses = column(result, "loss")
    if start is not None:
        assert losses[0] == pytest.approx(start, rel=1e-4)
    assert losses[-1] < losses[0] - 1e-4


def test_what_symmpo_logs(llava, own_cache, tmp_path):
    result = train("symmpo", llava, written(tmp_path, rows_of(tmp_path)), tmp_path / "run", logging_steps=1)
    for name in ("margin_own", "margin_contrast", "margin_gap", "margin_share", "accuracy_own", "reward_cc"):
        assert column(result, f"symmpo/{name}") or column(result, f"train_rows_symmpo/{name}"), name


def test_rows_that_are_not_plain_wins(llava, own_cache, tmp_path):
    """A lost row is turned round as it is read; votes leave open which answer the branches belong to."""
    rows = rows_of(tmp_path)
    lost = [{**row, "chosen": row["rejected"], "rejected": row["chosen"], "label": "lose"} for row in rows]
    found = [
        column(train("mdpo", llava, written(tmp_path, some), tmp_path / name, logging_steps=1), "loss")
        for name, some in (("won", rows), ("lost", lost))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    with pytest.raises(ValueError, match="4 not_decided"):
        train(
            "mdpo", llava, written(tmp_path, [{**row, "votes": [3, 1, 0]} for row in rows]), tmp_path / "run"
        )


def test_a_method_for_images_needs_a_model_that_sees(tiny_model, own_cache, tmp_path):
    with pytest.raises(ConfigError, match="symmpo trains vision-language models"):
        train("symmpo", tiny_model, written(tmp_path, rows_of(tmp_path)), tmp_path / "run")


def test_a_divergence_needs_a_reference_that_is_at_hand(llava, own_cache, tmp_path):
    with pytest.raises(ConfigError, match="chip needs the reference's whole distribution"):
        train("chip", llava, written(tmp_path, rows_of(tmp_path)), tmp_path / "run", reference="cached")


def test_branches_set_aside_keep_their_places():
    from prefopt.comparisons import Comparison, Encoded
    from prefopt.modalities.vision_language.setup import set_aside

    objective = prefopt.objectives.get("vdpo", alpha=1.0)
    edge = Comparison(0, 1, branches={"w_blank": 2, "l_blank": 3})
    example = set_aside(Encoded("a", ("w", "l", "w blank", "l blank"), (edge,)), objective)  # type: ignore[arg-type]
    assert example.items == ("w", "l")
    assert example.aside == ("w blank", "l blank")
    together = (*example.items, *example.aside)
    assert {name: together[k] for name, k in edge.branches.items()} == {
        "w_blank": "w blank",
        "l_blank": "l blank",
    }
