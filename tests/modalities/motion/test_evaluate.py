"""`prefopt evaluate` of text-to-motion models: numbers that are known beforehand, repetitions, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import motion_folder
import tiny_motions
from prefopt.cli.main import main
from prefopt.modalities.motion.evaluating import judges, measuring, repeating, summary
from prefopt.modalities.motion.evaluating.material import read_material
from prefopt.motion.codec import find_codec
from prefopt.motion.mirror import mirrored_caption

FACTS = {"codec": "stick", "max_frames": 32, "unit_length": 4}
HOW = repeating.How(
    samples=1000, repetitions=2, multimodality=False, num_inference_steps=2, guidance_scale=1.0, seed=0, batch_size=64
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_motions.tiny_mdm(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def judge(model) -> str:
    from prefopt.motion.pipeline import MotionPipeline

    pipe = MotionPipeline.from_pretrained(model)
    return f"retrieval:{tiny_motions.save_judge(model.parent / 'judge', pipe, seed=3)}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tiny_motions.stick_rows(40)))
    return path


def evaluate(*options: object) -> Any:
    return CliRunner().invoke(main, ["evaluate", *map(str, options)])


def an_evaluation(source: str, judge: str, how: repeating.How = HOW) -> repeating.Evaluation:
    known = judges.get_judge(judge)
    material = read_material(source, None, None, FACTS)
    codec = find_codec("stick")
    texts, truth = measuring.texts_of(known, material), measuring.seen_truth(material, known, codec)
    return repeating.Evaluation(material, known, texts, truth, codec, how)


class Copier:
    """A model that draws the true motions, in the order in which it is asked."""

    def __init__(self, evaluation: repeating.Evaluation) -> None:
        self.true = {s.captions[0]: s.read() for s in evaluation.material.samples}
        self.seeds: list[int] = []

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.zeros(len(texts), 4)

    def __call__(self, texts: list[str], lengths: list[int], seeds: list[int], **_: Any) -> Any:
        self.seeds += seeds

        class Drawn:
            features = [self.true[text][:n] for text, n in zip(texts, lengths, strict=True)]  # noqa: RUF012

        return Drawn


def test_a_model_that_draws_the_true_motions_has_their_numbers(rows, judge):
    evaluation = an_evaluation(str(rows), judge)
    pipe = Copier(evaluation)
    for r in range(2):
        told, listed = evaluation.drawn(pipe, r)
        real = evaluation.real(r)
        assert told == pytest.approx(real)
        assert told["fid"] == pytest.approx(0.0, abs=1e-9)
        assert 0 < told["mm_dist"] < 2
    assert [row["id"] for row in listed] == [sample.id for sample in evaluation.material.samples]
    assert len(set(pipe.seeds)) == 80  # another noise for each motion of each repetition
    first = evaluation.material.samples[0]
    distance = evaluation.texts.of[first.captions[0]] - evaluation.judge.motions([first.read()])[0]
    assert listed[0]["distance"] == pytest.approx(float(distance.norm()), abs=1e-5)
    assert sum(row["rank"] is None for row in listed) == 8  # 40 motions are a pool of 32


def test_fewer_samples_are_drawn_anew_in_each_repetition_and_stay_in_order(rows, judge):
    from dataclasses import replace

    evaluation = an_evaluation(str(rows), judge, replace(HOW, samples=33))
    found = [evaluation.chosen(r) for r in range(3)]
    assert all(len(places) == 33 and places == sorted(places) for places in found)
    assert found[0] != found[1]
    assert found[0] == evaluation.chosen(0)


def test_rules_and_pools_of_a_world(rows, judge):
    material = read_material("world:motion", "test", 400, {**FACTS, "unit_length": 1})
    assert (material.source, material.split, len(material.samples)) == ("world:motion", "test", 400)
    captions = [s.captions[0] for s in material.samples]
    told = measuring.by_rules(material.world, captions, [s.read() for s in material.samples])
    assert told["rule_pass"] == told["rule_side"] == 1.0
    wrong = [mirrored_caption(caption) for caption in captions]
    turned = measuring.by_rules(material.world, wrong, [s.read() for s in material.samples])
    assert turned["rule_side"] == 0.0
    from prefopt.worlds.motion.task import parse_caption

    places = measuring.in_world_pools(captions, 5)
    assert places != measuring.in_world_pools(captions, 6)
    for start in range(0, len(places), 32):
        programs = [parse_caption(captions[n])._replace(speed="") for n in places[start : start + 32]]
        assert len(set(programs)) == 32
    with pytest.raises(ValueError, match="make no pool of 32 different programs"):
        measuring.in_world_pools(captions[:8], 0)


def test_texts_of_a_world_rank_motions_of_other_programs(judge):
    from prefopt.metrics.retrieval import ranking
    from prefopt.worlds.base import seed_of

    evaluation = an_evaluation("world:motion", judge)
    pipe = Copier(evaluation)
    told, listed = evaluation.drawn(pipe, 1)
    captions = [sample.captions[0] for sample in evaluation.material.samples]
    places = measuring.in_world_pools(captions, seed_of("pools 0 1"))
    motion_NE = evaluation.judge.motions([pipe.true[caption] for caption in captions])
    wanted = ranking(evaluation.texts.embed(captions)[places], motion_NE[places])
    assert [told[f"r_precision_{k}"] for k in (1, 2, 3)] == wanted.r_precision
    assert [listed[place]["rank"] for place in places] == wanted.ranks_N.tolist()
    assert sum(row["rank"] is not None for row in listed) == len(places) < 400
    assert told["rule_pass"] == 1.0
    assert told["diversity"] == pytest.approx(told["expected_diversity"], rel=0.2)


def test_sides_are_told_by_distance_and_ties_are_half():
    texts = measuring.Texts(
        {
            "the left arm": torch.tensor([1.0, 0.0]),
            "the right arm": torch.tensor([-1.0, 0.0]),
            "jumps": torch.tensor([0.0, 0.0]),
        }
    )
    motion_NE = torch.tensor([[0.5, 0.0], [0.5, 0.0], [9.0, 9.0], [0.0, 1.0]])
    captions = ["the left arm", "the right arm", "jumps", "the left arm"]
    assert measuring.side_accuracy(captions, texts, motion_NE) == pytest.approx((1 + 0 + 0.5) / 3)
    assert measuring.side_accuracy(["jumps"], texts, motion_NE[2:3]) is None


def test_change_is_positive_where_better_whichever_way_a_measure_points():
    def side(**values: float) -> dict[str, Any]:
        return summary.means([values, values])

    real = side(diversity=9.5, jerk=40.0)
    base = side(
        r_precision_1=0.4,
        fid=0.5,
        diversity=9.9,
        jerk=50.0,
        multimodality=2.0,
        foot_skating=0.0,
        rule_side=0.5,
    )
    mine = side(
        r_precision_1=0.5,
        fid=0.4,
        diversity=9.6,
        jerk=36.0,
        multimodality=3.0,
        foot_skating=0.1,
        rule_side=0.4,
    )
    found = summary.change(base, mine, real)
    assert {name: one["relative"] for name, one in found.items()} == {
        "r_precision_1": pytest.approx(25.0),
        "fid": pytest.approx(20.0),
        "diversity": pytest.approx(75.0),
        "jerk": pytest.approx(60.0),
        "multimodality": None,
        "foot_skating": None,
        "rule_side": pytest.approx(-20.0),
    }
    assert found["fid"]["difference"] == pytest.approx(-0.1)
    assert found["fid"]["interval"] == pytest.approx(0.0, abs=1e-12)


def test_through_the_command_and_again(model, rows, judge, tmp_path, monkeypatch):
    other = tiny_motions.tiny_mdm(tmp_path / "other", seed=9)
    options = [model, "--baseline", other, "--data", rows, "--judge", judge, "--repetitions", 2]
    options += ["--num_inference_steps", 2, "--guidance_scale", 1, "--output", tmp_path / "out"]
    done = evaluate(*options)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert told["samples"] == 40
    assert set(told["change"]) == set(told["model"])
    assert len(told["model"]["fid"]["values"]) == 2
    assert told["model"]["fid"]["mean"] > 0.01
    assert told["model"]["r_precision_3"]["values"] != told["baseline"]["mm_dist"]["values"]
    assert "Diversity is left out" in done.output
    assert "`Diversity (exact)` is its exact" in done.output
    lines = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in tiny_motions.stick_rows(40)]
    assert lines[0]["distance"] != lines[0]["baseline_distance"]

    monkeypatch.setattr(repeating.Evaluation, "drawn", None)
    again = evaluate(*options)
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["model"] == told["model"]
    changed = evaluate(*options, "--seed", 1)
    assert changed.exit_code == 1
    assert "was begun with seed = 0" in changed.output


def test_the_same_seed_gives_both_the_same_noise(model, rows, judge, tmp_path):
    options = [
        "--data",
        rows,
        "--judge",
        judge,
        "--repetitions",
        1,
        "--num_inference_steps",
        2,
        "--output",
        tmp_path / "o",
    ]
    assert evaluate(model, "--baseline", model, *options).exit_code == 0
    told = json.loads((tmp_path / "o" / "evaluation.json").read_text())
    assert told["model"] == told["baseline"]


def test_many_motions_of_a_text(model, rows, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(repeating, "TEXTS", 3)
    monkeypatch.setattr(repeating, "EACH", 12)
    done = evaluate(
        model, "--data", rows, "--judge", judge, "--multimodality", "--num_inference_steps", 1, "--output", tmp_path / "o"
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "o" / "evaluation.json").read_text())
    assert told["repetitions"] == 5
    assert len(set(told["model"]["multimodality"]["values"])) == 5
    assert "multimodality" not in told["real"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"--judge": "clip:x"}, "no judge of motions is called 'clip:x'"),
        ({"--judge": "retrieval:nowhere"}, "there is no folder nowhere"),
        ({"--judge": None}, "--judge is needed for data that are no world"),
        ({"--data": "few"}, "has 20 motions; R-precision ranks pools of 32"),
        ({"--judge": "humanml3d"}, "reads features of humanml3d, and the model makes those of stick"),
        ({"--baseline": "humanml3d model"}, "--baseline makes features of humanml3d"),
        ({"--data": "world:picture"}, "world:picture has no motions"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_drawn(
    more, sentence, model, rows, judge, tmp_path, monkeypatch
):
    from prefopt.motion.pipeline import MotionPipeline
    from prefopt.motion.stats import MotionStats

    monkeypatch.setattr(MotionPipeline, "__call__", None)
    given = {"--data": rows, "--judge": judge, "--output": tmp_path / "o"} | more
    if given["--data"] == "few":
        given["--data"] = tmp_path / "few.jsonl"
        given["--data"].write_text("\n".join(rows.read_text().splitlines()[:20]))
    if given["--judge"] == "humanml3d":
        pipe = MotionPipeline.from_pretrained(model)
        stats = MotionStats.of("humanml3d", torch.zeros(263), torch.ones(263), fps=20)
        given["--judge"] = f"retrieval:{tiny_motions.save_judge(tmp_path / 'j', pipe, stats)}"
    if given.get("--baseline"):
        given["--baseline"] = tiny_motions.tiny_mdm(
            tmp_path / "b", features=263, codec="humanml3d", max_frames=40
        )
    done = evaluate(model, *(x for pair in given.items() if pair[1] is not None for x in pair))
    assert done.exit_code == 1, done.output
    assert sentence in done.output.replace("\n", " ")


# -- judges --------------------------------------------------------------------------------------------------


def test_the_judge_of_a_run_is_known_and_compared_by_place(tmp_path):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)

    def configured(**config: Any) -> str | None:
        (run / "config.yaml").write_text(json.dumps(config))
        return judges.training_judge(str(run / "model"))

    assert (
        configured(method="sopo", data="d", judge=f"retrieval:{tmp_path}/x/../j")
        == f"retrieval:{tmp_path}/x/../j"
    )
    assert judges.training_judge(str(run)) == f"retrieval:{tmp_path}/x/../j"
    assert judges.same_judge(f"retrieval:{tmp_path}/x/../j", f"retrieval:{tmp_path}/j/")
    assert not judges.same_judge(f"retrieval:{tmp_path}/j", f"t2m:{tmp_path}/j")
    assert judges.same_judge(configured(data="world:motion", judge=None), "world:motion:reward")
    assert not judges.same_judge(configured(data="world:motion", judge=None), "world:motion:evaluator")
    assert not judges.same_judge(configured(data="d", judge="world:motion"), "world:motion")
    assert configured(method="sft", data="world:motion") is None
    assert judges.training_judge(str(tmp_path / "elsewhere")) is None


def test_captions_with_tags_alone_are_read_by_the_t2m_evaluator(tmp_path):
    from prefopt.motion.t2m_evaluator import T2MEvaluator

    folder = motion_folder.write_motion_folder(tmp_path / "data")
    (folder / "texts" / "000016.txt").write_text("a person walks\nhe walks#he/PRON walk/VERB#0#0\n")
    (folder / "texts" / "000017.txt").write_text("a person walks\n")
    facts = {"codec": "humanml3d", "max_frames": 40, "unit_length": 4}
    whole = read_material(str(folder), None, None, facts)
    assert (whole.split, len(whole.samples)) == ("test", 33)
    assert whole.samples[0].captions == ("a person walks", "he walks")
    material = whole.tagged_only()
    assert len(material.samples) == 32
    assert material.samples[0].captions == ("he walks",)
    assert material.samples[0].tagged == ("he/PRON walk/VERB",)
    assert material.dropped[-1].id == "000017"
    assert {s.length for s in material.samples} == {40}

    small = {
        "word_width": 8,
        "text_hidden": 8,
        "movement_hidden": 8,
        "movement_width": 8,
        "motion_hidden": 8,
        "embedding": 6,
    }
    torch.manual_seed(0)
    words = ("unk", "sos", "eos", "left", "right", "walk", "wave", "person")
    model = T2MEvaluator(vocabulary=words, max_frames=44, **small)
    model.word_vectors.normal_()
    judge = judges.Judge("t2m:x", model, True)
    texts = measuring.texts_of(judge, material)
    told = "a/DET person/NOUN wave/VERB the/DET right/ADJ hand/NOUN"
    assert torch.allclose(texts.of["a person waves the right hand"], model.encode_texts([told])[0], atol=1e-6)
    left, right = (texts.of[f"a person waves the {side} hand"] for side in ("left", "right"))
    assert float((left - right).norm()) > 1e-3
    truth = measuring.seen_truth(material, judge, find_codec("humanml3d"))
    assert truth.embedding_NE.shape == (32, 6)
    for name in ("texts/*", "new_joint_vecs/*.bak"):
        for path in folder.glob(name):
            path.write_text("a person walks\n")
    with pytest.raises(ValueError, match="have no parts of speech, which the T2M evaluator reads"):
        read_material(str(folder), None, None, facts).tagged_only()


def test_a_caption_of_a_motion_is_drawn_anew_in_each_repetition(rows, judge):
    from dataclasses import replace

    evaluation = an_evaluation(str(rows), judge)
    sample = replace(evaluation.material.samples[0], captions=("one", "two", "three"))
    found = [evaluation.caption(sample, r) for r in range(40)]
    assert set(found) == {"one", "two", "three"}
    assert found == [evaluation.caption(sample, r) for r in range(40)]


def test_pairs_give_their_better_motion_and_bad_singles_none(tmp_path):
    rows = tiny_motions.stick_rows(2)
    rows[1]["votes"] = [1, 2, 0]
    found = read_material_of(tmp_path, rows)
    assert torch.equal(found[0].read(), torch.tensor(rows[0]["chosen_motion"]))
    assert torch.equal(found[1].read(), torch.tensor(rows[1]["rejected_motion"]))
    singles = [
        {"id": n, "prompt": "jumps", "motion": rows[n]["chosen_motion"], "label": bool(n)} for n in range(2)
    ]
    (only,) = read_material_of(tmp_path, singles)
    assert np.allclose(only.read(), rows[1]["chosen_motion"])


def read_material_of(folder: Path, rows: list[dict[str, Any]]) -> Any:
    path = folder / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_material(str(path), None, None, FACTS).samples
