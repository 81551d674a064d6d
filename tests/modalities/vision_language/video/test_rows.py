"""Rows of videos: columns, blocks, what the reference sees, what may be drawn anew, and rows that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalities.vision_language.video.video_runs import anchored_rows, clip_row, said
from prefopt.comparisons import Example, Item
from prefopt.modalities.vision_language.prompts import MARK, VIDEO_MARK, marks
from prefopt.modalities.vision_language.rows import Wanted, load_pictured
from prefopt.modalities.vision_language.video.redrawing import Redrawing
from prefopt.modalities.vision_language.video.rows import VideoColumns
from prefopt.modalities.vision_language.video.videos import Sampling, Video
from prefopt.sources.collecting import Comparisons

PAIR = {"prompt": "what is it ?", "chosen": " a cat", "rejected": " a dog"}


def absolute(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    for clip in (*row.get("video", []), *row.get("pool", [])):
        clip["source"] = [str(folder / name) for name in clip["source"]]
    return row


@pytest.fixture
def clips(tmp_path: Path) -> list[dict[str, Any]]:
    return [absolute({"video": [clip_row(tmp_path, f"clip{n}")]}, tmp_path)["video"][0] for n in range(4)]


def load(rows: list[dict[str, Any]], **columns: Any) -> Comparisons:
    return load_pictured(rows, wanted=Wanted(videos=VideoColumns(**columns)))


def first(rows: list[dict[str, Any]], **columns: Any) -> Example:
    return load(rows, **columns).examples[0]


def videos(item: Item) -> list[Video]:
    return [medium for medium in item.condition["pictures"] if isinstance(medium, Video)]


def test_a_video_stands_at_the_beginning_unless_it_is_placed(clips):
    (video,) = videos(item := first([{**PAIR, "video": clips[:2]}]).items[0])
    assert item.condition["prompt"] == f"{VIDEO_MARK}\nwhat is it ?"
    assert [len(clip.frames) for clip in video.clips] == [4, 4]
    placed = first([{**PAIR, "prompt": "look <video> what is it ?", "video": clips[0]}]).items[0]
    assert placed.condition["prompt"] == f"look {VIDEO_MARK} what is it ?"
    # LLaVA's rows of videos say <image>
    llava = first([{**PAIR, "prompt": "<image>\nwhat is it ?", "video": clips[0]}]).items[0]
    assert llava.condition["prompt"] == f"{VIDEO_MARK}\nwhat is it ?"


def test_images_and_videos_take_their_own_places(clips, tmp_path):
    image = str(tmp_path / "clip0-0.png")
    row = {**PAIR, "prompt": "<video> then <image> ?", "video": clips[0], "image": image}
    item = first([row]).items[0]
    assert marks(item.condition["prompt"]) == VIDEO_MARK + MARK
    assert [type(medium).__name__ for medium in item.condition["pictures"]] == ["Video", "Picture"]
    bare = first([{**PAIR, "video": clips[0], "image": image}]).items[0]
    assert bare.condition["prompt"].startswith(MARK + VIDEO_MARK)


BLOCKS = {
    "list": lambda clips: {"type": "video", "video": clips[:2]},
    "path": lambda clips: {"type": "video", "path": clips[0]},
    "url": lambda clips: {"type": "video_url", "video_url": {"url": clips[0]}},
    "bare": lambda clips: {"type": "video"},
}


@pytest.mark.parametrize("block", list(BLOCKS))
def test_blocks_of_messages(block, clips):
    prompt = [{"role": "user", "content": [{"type": "text", "text": "look"}, BLOCKS[block](clips)]}]
    row: dict[str, Any] = {"prompt": prompt, "chosen": said("a cat"), "rejected": said("a dog")}
    if block == "bare":
        row["videos"] = [clips[0]]
    item = first([row]).items[0]
    assert marks(item.condition["prompt"]) == VIDEO_MARK
    assert len(videos(item)[0].clips) == (2 if block == "list" else 1)


def test_videos_of_one_side(clips):
    row = {**PAIR, "rejected": PAIR["chosen"], "chosen_video": clips[0], "rejected_video": clips[1]}
    better, worse = first([row]).items
    assert videos(better)[0].digest != videos(worse)[0].digest


def test_single_samples(clips):
    row = {"prompt": "what is it ?", "completion": " a cat", "label": True, "video": clips[0]}
    found = load([row, {**row, "label": False}])
    assert len(found.examples) == 2
    assert videos(found.examples[0].items[0])


def test_frames_are_chosen_alike_wherever_a_clip_stands(clips):
    sampling = Sampling(frames=2)
    alone = videos(first([{**PAIR, "video": clips[1]}], sampling=sampling).items[0])[0]
    among = videos(first([{**PAIR, "video": clips[:3]}], sampling=sampling).items[0])[0]
    assert alone.clips[0] == among.clips[1]
    assert alone.clips[0].frames == (1, 3)
    named = videos(first([{**PAIR, "video": {**clips[0], "frames": [0, 3]}}], sampling=sampling).items[0])[0]
    assert named.clips[0].frames == (0, 3)
    rate = videos(first([{**PAIR, "video": clips[0]}], sampling=Sampling(None, 1.0)).items[0])[0]
    assert rate.frames == 2


@pytest.mark.parametrize(("context", "seen"), [("anchor", 1), ("evidence", 2), ("full", None), ("row", 1)])
def test_what_the_reference_sees(context, seen, clips):
    row = {**PAIR, "video": clips[:3], "anchor": 1, "evidence": [0, 2], "reference_context": "anchor"}
    item = first([row], context=context).items[0]
    if seen is None:
        assert item.reference_condition is None
        return
    assert item.reference_condition is not None
    (video,) = item.reference_condition["pictures"]
    expected = {"anchor": [1], "row": [1], "evidence": [0, 2]}[context]
    assert list(video.clips) == [videos(item)[0].clips[k] for k in expected]
    assert item.reference_condition["prompt"] == item.condition["prompt"]
    assert "redraw" not in item.reference_condition


def test_evidence_may_be_stretches_of_its_own(clips):
    row = {
        **PAIR,
        "video": clips[0],
        "evidence": [{**clips[0], "end_s": 1.0}],
        "reference_context": "evidence",
    }
    (video,) = first([row]).items[0].reference_condition["pictures"]
    assert video.clips[0].end_s == 1.0
    assert video.frames == 2


REFUSED = {
    "anchor": ({"anchor": 3, "reference_context": "anchor"}, "and the video has 3 clips: needed 0 to 2"),
    "no anchor": ({"reference_context": "anchor"}, "anchor is absent"),
    "context": ({"reference_context": "some"}, "needed anchor, evidence or full"),
    "pinned": ({"anchor": 1, "pinned": 1}, "the anchor is pinned as a distractor, too"),
    "far": ({"anchor": 1, "pinned": 7}, "pinned is 7"),
    "text": ({"anchor": "1", "reference_context": "anchor"}, "anchor is '1'"),
    "places": ({"prompt": "<video> and <video>"}, "places for 2 video"),
    "empty": ({"video": [{"source": []}]}, "is an empty list of images"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_rows_that_are_refused(case, clips):
    change, words = REFUSED[case]
    good = {**PAIR, "video": clips[:3]}
    found = load([good, {**good, **change}])
    (drop,) = found.dropped
    assert words in drop.detail


def test_a_file_that_is_missing_is_told_with_its_folder():
    with pytest.raises(
        ValueError, match=r"missing_video.*Paths of videos start at .*ignore_columns=\[video\]"
    ):
        load([{**PAIR, "video": "nowhere.mp4"}])


def test_objectives_that_contrast_images_refuse_videos(clips):
    from prefopt import objectives

    wanted = Wanted(objectives.get("mdpo").branches, contrast="black")
    with pytest.raises(ValueError, match="the objective contrasts images"):
        load_pictured([{**PAIR, "video": clips[0]}], wanted=wanted)


# -- drawn anew ----------------------------------------------------------------------------------------------


def redraws(folder: Path, count: int = 12) -> dict[str, Any]:
    rows = [absolute(row, folder) for row in anchored_rows(folder, count)]
    found = load(rows)
    return {example.id: example.items[0].condition["redraw"] for example in found.examples}


def test_videos_drawn_anew_keep_anchor_and_pinned_distractor_and_use_slots_evenly(tmp_path):
    known = redraws(tmp_path)
    drawing = Redrawing(0, {name: redraw.distractors + 1 for name, redraw in known.items()})
    for epoch in range(3):
        slots = []
        for name, redraw in known.items():
            video = drawing.video(redraw, name, epoch)
            assert len(video.clips) == 3
            assert len(set(video.clips)) == 3
            assert set(redraw.pinned) <= set(video.clips) <= set(redraw.clips)
            slots.append(video.clips.index(redraw.anchor))
        assert sorted(slots) == sorted([0, 1, 2] * 4)
    same = Redrawing(0, dict.fromkeys(known, 3))
    name, redraw = next(iter(known.items()))
    assert same.video(redraw, name, 1).digest == drawing.video(redraw, name, 1).digest
    drawn = {drawing.video(redraw, name, epoch).digest for epoch in range(8)}
    assert len(drawn) > 3
    assert {len(set(redraw.pool))} == {3}  # its own other distractor, and two of the pool


def test_no_pool_draws_the_order_alone(tmp_path):
    row = absolute(anchored_rows(tmp_path, 1)[0], tmp_path)
    row.pop("pool")
    redraw = first([row]).items[0].condition["redraw"]
    videos_drawn = [redraw.video(slot, f"{slot}") for slot in range(3)]
    assert {frozenset(video.clips) for video in videos_drawn} == {frozenset(redraw.clips)}
    assert [video.clips.index(redraw.anchor) for video in videos_drawn] == [0, 1, 2]
    assert (
        len({redraw.video(0, f"{k}").clips[1:] for k in range(12)}) == 2
    )  # the pinned one is not always first


def test_nothing_is_drawn_where_it_is_not_asked_for(tmp_path):
    row = absolute(anchored_rows(tmp_path, 1)[0], tmp_path)
    assert "redraw" not in first([row], redraw=False).items[0].condition
    row.pop("anchor")
    assert "redraw" not in first([{**row, "reference_context": "full"}]).items[0].condition


def test_an_anchor_in_the_pool_is_refused(tmp_path):
    row = absolute(anchored_rows(tmp_path, 1)[0], tmp_path)
    redraw = first([row]).items[0].condition["redraw"]
    with pytest.raises(ValueError, match="the anchor is among the distractors"):
        replace(redraw, pool=(redraw.anchor,))


def test_columns_of_datasets_and_parquet(tmp_path):
    from datasets import Dataset, List
    from datasets import Video as Column

    import tiny_videos

    tiny_videos.write(tmp_path / "a.mp4", frames=12)
    texts = {"prompt": ["what ?", "who ?"], "chosen": [" a", " b"], "rejected": [" c", " d"]}
    one = Dataset.from_dict({**texts, "video": [str(tmp_path / "a.mp4")] * 2}).cast_column("video", Column())
    several = Dataset.from_dict({**texts, "videos": [[str(tmp_path / "a.mp4")]] * 2})
    several = several.cast_column("videos", List(Column()))
    one.to_parquet(tmp_path / "rows.parquet")
    for source in (one, several, str(tmp_path / "rows.parquet")):
        (video,) = videos(load_pictured(source).examples[0].items[0])
        assert video.clips[0].frames == (0, 2, 3, 5, 6, 8, 9, 11)
