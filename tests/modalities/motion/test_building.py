"""`prefopt build motion-model`, `motion-evaluator` and `motion-retrieval`: folders that the other commands take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import motion_folder
import tiny_pipelines
from prefopt.cli.main import main
from prefopt.modalities.motion.building import retrieval
from prefopt.modalities.motion.evaluating.material import Sample
from prefopt.modalities.motion.scorers import get_scorer
from prefopt.worlds import get_world
from released_layouts import FEATURES, WORDS, write_mdm, write_t2m


def build(*options: object) -> Any:
    return CliRunner().invoke(main, ["build", *map(str, options)])


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A checkpoint of MDM, its text encoder and statistics; the T2M evaluator."""
    folder = tmp_path_factory.mktemp("released")
    write_mdm(folder / "mdm")
    write_t2m(folder / "t2m")
    tiny_pipelines.clip(projection=True).save_pretrained(folder / "clip")
    tiny_pipelines.clip_tokenizer().save_pretrained(folder / "clip")
    np.save(folder / "Mean.npy", np.full(FEATURES, 0.5, np.float32))
    np.save(folder / "Std.npy", np.full(FEATURES, 2.0, np.float32))
    return folder


def test_a_checkpoint_becomes_a_model_that_draws(released, tmp_path):
    from prefopt.motion.pipeline import MotionPipeline

    options = [
        released / "mdm" / "model000000005.pt",
        "--text_encoder",
        released / "clip",
        "--stats",
        released,
    ]
    done = build("motion-model", *options, "-o", tmp_path / "m")
    assert done.exit_code == 0, done.output
    assert "263 features a frame (humanml3d), up to 196 frames, padding seen" in done.output
    pipe = MotionPipeline.from_pretrained(tmp_path / "m")
    pipe.set_progress_bar_config(disable=True)
    assert float(pipe.stats.std_D[0]) == 2.0
    assert pipe(["a person"], [8], num_inference_steps=1).features[0].shape == (8, 263)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]

    again = build("motion-model", *options, "-o", tmp_path / "m")
    assert again.exit_code == 1
    assert "is there already; give --force" in again.output
    assert build("motion-model", *options, "-o", tmp_path / "m", "--force").exit_code == 0


def test_what_is_missing_is_named_and_nothing_is_left(released, tmp_path):
    lonely = tmp_path / "lonely.pt"
    lonely.write_bytes((released / "mdm" / "model000000005.pt").read_bytes())
    done = build(
        "motion-model", lonely, "--text_encoder", released / "clip", "--stats", released, "-o", tmp_path / "m"
    )
    assert done.exit_code == 1
    assert "args.json is not there" in done.output
    missing = build(
        "motion-model", released / "mdm" / "model000000005.pt", "--text_encoder", tmp_path / "none", "--stats", released, "-o",
        tmp_path / "m",
    )  # fmt: skip
    assert missing.exit_code == 1
    assert "could not be written" not in missing.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lonely.pt"]


def test_the_released_evaluator_becomes_a_judge(released, tmp_path):
    t2m = released / "t2m"
    done = build(
        "motion-evaluator", t2m / "finest.tar", "--glove", t2m, "--mean", t2m / "mean.npy", "--std", t2m / "std.npy", "-o",
        tmp_path / "e",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"reads 263 features a frame (humanml3d) and {len(WORDS)} words" in done.output
    scorer = get_scorer(f"t2m:{tmp_path / 'e'}")
    assert scorer.score(["a/DET person/NOUN walk/VERB"], torch.zeros(1, 8, 263), torch.tensor([8])).item() < 0


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    found = get_world("motion").comparisons(400)
    path.write_text(
        "".join(
            json.dumps(
                {
                    "id": row["id"],
                    "captions": [row["prompt"]] * (1 + n % 2),
                    "motion": row["chosen_motion"].round(4).tolist(),
                }
            )
            + "\n"
            for n, row in enumerate(found)
        )
    )
    return path


def test_encoders_learn_to_tell_motions(rows, tmp_path):
    done = build(
        "motion-retrieval", rows, "-o", tmp_path / "j", "--steps", 90, "--batch_size", 64, "--width", 32, "--layers", 1,
        "--learning_rate", "4e-3", "--held_out", "0.2", "--seed", 1,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "j" / "training.json").read_text())
    assert told["motions"] == {"trained": 320, "held_out": 80, "dropped": 0}
    assert told["held_out"]["separation"] > 0.85
    assert told["held_out"]["r_precision"][2] > 3 * 3 / 32
    assert 0.5 < told["held_out"]["side_accuracy"] <= 1
    assert told["loss"]["last"] < told["loss"]["first"] / 1.3
    assert "held-out motions: tells their captions from others' with AUC 0." in done.output
    assert "do not train with this judge" not in done.output
    scorer = get_scorer(f"retrieval:{tmp_path / 'j'}")
    row = json.loads(rows.read_text().splitlines()[0])
    (score,) = scorer.score(
        row["captions"][:1], torch.tensor(row["motion"])[None], torch.tensor([32])
    ).tolist()
    assert 0.5 < score <= 1


def test_a_folder_of_few_motions_gets_a_warning(tmp_path):
    folder = motion_folder.write_motion_folder(tmp_path / "data")
    done = build(
        "motion-retrieval",
        folder,
        "-o",
        tmp_path / "j",
        "--steps",
        1,
        "--width",
        8,
        "--layers",
        1,
        "--held_out",
        0,
    )
    assert done.exit_code == 0, done.output
    assert "12 motions to learn from, 0 held out, 1 that cannot be used" in done.output
    assert "nothing is held out that could tell how good it is" in done.output
    assert get_scorer(f"retrieval:{tmp_path / 'j'}").name.startswith("retrieval:")


def test_an_encoder_that_is_given_is_where_it_starts(released, rows, tmp_path):
    done = build(
        "motion-retrieval", rows, "-o", tmp_path / "j", "--steps", 1, "--width", 8, "--layers", 1, "--limit", 40, "--text_encoder",
        released / "clip", "--learning_rate", "1e-9",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    from transformers import CLIPTextModel

    given = CLIPTextModel.from_pretrained(released / "clip").state_dict()
    found = CLIPTextModel.from_pretrained(tmp_path / "j" / "text_encoder").state_dict()
    name = next(name for name in given if name.endswith("token_embedding.weight"))
    assert torch.allclose(given[name], found[name], atol=1e-6)


def test_parts_and_mirror_images_of_a_clip_are_not_torn_apart():
    ids = [f"{m}{n:06d}{part}" for n in range(20) for m in ("", "M") for part in ("", ":2")]
    samples = [Sample(i, ("a",), (), None, 4) for i in ids]  # type: ignore[arg-type]
    learn, tried = retrieval.divided(samples, 0.25, 0)
    assert (len(learn), len(tried)) == (60, 20)
    numbers = [{s.id.removeprefix("M")[:6] for s in some} for some in (learn, tried)]
    assert [len(some) for some in numbers] == [15, 5]
    assert numbers[0].isdisjoint(numbers[1])
    with pytest.raises(ValueError, match="needed two or more to learn from"):
        retrieval.divided(samples[:4], 0.9, 0)


def test_a_width_without_heads_is_refused(rows, tmp_path):
    done = build("motion-retrieval", rows, "-o", tmp_path / "j", "--width", 18)
    assert done.exit_code == 1
    assert "--width 18: needed a multiple of 4" in done.output


def test_what_cannot_be_read_is_named(tmp_path):
    done = build("motion-retrieval", tmp_path / "none.jsonl", "-o", tmp_path / "j")
    assert done.exit_code == 1
    assert "none.jsonl" in done.output
    assert not (tmp_path / "j").exists()
