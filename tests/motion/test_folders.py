"""Folders in the layout of HumanML3D: what is taken, what is dropped and why, and every malformed file."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from prefopt.motion.arrays import MotionFileError, npy_header
from prefopt.motion.clips import MotionClip, crop, read_clip
from prefopt.motion.folders import measured_stats, read_folder, read_stats
from prefopt.motion.humanml3d import HUMANML3D, KIT

LINE = "a person walks#a/DET person/NOUN walk/VERB#0.0#0.0\n"


class Folder:
    """A miniature folder that tests write into."""

    def __init__(self, path: Path, width: int = 263) -> None:
        self.path, self.width = path, width
        (path / "new_joint_vecs").mkdir(parents=True)
        (path / "texts").mkdir()
        self.ids: list[str] = []

    def add(self, id: str, frames: int = 60, text: str | bytes = LINE, array: object = None) -> "Folder":
        if array is None:
            array = np.random.default_rng(len(self.ids)).normal(size=(frames, self.width)).astype("float32")
        np.save(self.vectors(id), array, allow_pickle=True)
        self.text(id).write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.list(id)

    def list(self, *ids: str) -> "Folder":
        self.ids += ids
        (self.path / "train.txt").write_text("\n".join(self.ids) + "\n")
        return self

    def vectors(self, id: str) -> Path:
        return self.path / "new_joint_vecs" / f"{id}.npy"

    def text(self, id: str) -> Path:
        return self.path / "texts" / f"{id}.txt"

    def read(self, **kwargs):
        return read_folder(self.path, HUMANML3D, **kwargs)

    def why(self, id: str) -> tuple[str, str]:
        """Reason and sentence why an id was dropped, beside one that was not."""
        self.add("good")
        found = self.read()
        assert [clip.id for clip in found.clips if clip.id.startswith(id)] == []
        (dropped,) = [one for one in found.dropped if one.id.startswith(id)]
        return dropped.reason, dropped.detail


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "HumanML3D")


def test_clips_captions_and_frames_without_reading_arrays(folder: Folder, monkeypatch) -> None:
    folder.add("000000", 100, LINE + "he runs#run/VERB#0.0#0.0\n").add("M000000", 50)
    with monkeypatch.context() as patch:
        patch.setattr(np, "fromfile", None)
        found = folder.read()
    assert [(c.id, c.captions, c.frames) for c in found.clips] == [
        ("000000", ("a person walks", "he runs"), 100),
        ("M000000", ("a person walks",), 50),
    ]
    assert found.clips[0].tokens == (("a/DET", "person/NOUN", "walk/VERB"), ("run/VERB",))
    assert found.dropped == found.shortened == []
    features = read_clip(found.clips[1])
    assert features.dtype == torch.float32
    assert torch.equal(features, torch.from_numpy(np.load(folder.vectors("M000000"))))


def test_parts_are_clips_of_their_own(folder: Folder) -> None:
    text = LINE + "turns#turn/VERB#1.02#4.0\nsits#sit/VERB#3.0#4.5\nsits down#sit/VERB#6.0#99.0\n"
    found = folder.add("000001", 180, text).read()
    assert [(c.id, c.captions, c.start, c.end) for c in found.clips] == [
        ("000001", ("a person walks",), 0, 180),
        ("000001:2", ("turns",), 20, 80),
        ("000001:4", ("sits down",), 120, 180),
    ]
    whole = read_clip(found.clips[0])
    assert torch.equal(read_clip(found.clips[1]), whole[20:80])
    (short,) = found.dropped
    assert (short.id, short.reason) == ("000001:3", "too_short")
    assert "line 3: the part from 3 s to 4.5 s has 30 frames (1.5 s); 40 to 199" in short.detail
    (cut,) = found.shortened
    assert cut.id == "000001:4"
    assert "ends behind the end, and is kept up to it: the motion has 180 frames, 9 s" in cut.detail


def test_only_parts_and_times_that_are_not_numbers(folder: Folder) -> None:
    found = folder.add("a", 100, "turns#t/V#0.0#3.0\n").add("b", 100, "walks#w/V#nan#nan\n").read()
    assert [(c.id, c.start, c.end) for c in found.clips] == [("a:1", 0, 60), ("b", 0, 100)]


@pytest.mark.parametrize(
    ("frames", "reason"), [(39, "too_short"), (40, None), (199, None), (200, "too_long")]
)
def test_bounds_of_humanml3d(folder: Folder, frames: int, reason: str | None) -> None:
    folder.add("good").add("x", frames)
    found = folder.read()
    assert [d.reason for d in found.dropped] == ([reason] if reason else [])
    assert len(folder.read(shortest=1, longest=1000).clips) == 2


def test_bounds_and_rate_of_kit(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "KIT-ML", width=251)
    folder.add("00001", 24, "walks#w/V#0#0\n").add("00002", 23).add("00003", 100, "runs#r/V#2.0#6.0\n")
    found = read_folder(folder.path, KIT)
    assert [(c.id, c.start, c.end) for c in found.clips] == [("00001", 0, 24), ("00003:1", 25, 75)]
    assert [d.id for d in found.dropped] == ["00002"]


def test_windows_line_ends_marks_and_plain_captions(folder: Folder) -> None:
    folder.add("w", text=b"\xef\xbb\xbfa person walks#a/DET#0.0#0.0\r\n\r\njust words\r\nwords#a/B\r\n")
    (folder.path / "train.txt").write_bytes(b"\xef\xbb\xbfw\r\n\r\n")
    (clip,) = folder.read().clips
    assert clip.captions == ("a person walks", "just words", "words")
    assert clip.tokens == (("a/DET",), (), ("a/B",))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", ">f4", "uint8"])
def test_real_numbers_of_any_type_are_cast(folder: Folder, dtype: str) -> None:
    array = (np.arange(50 * 263).reshape(50, 263) % 100).astype(dtype)
    (clip,) = folder.add("x", array=np.asfortranarray(array)).read().clips
    assert torch.equal(read_clip(clip), torch.from_numpy(array.astype("float32")))


# -- malformed files: each is named, and says what to do -------------------------------------------------------


def test_pickled_arrays_are_not_opened(folder: Folder) -> None:
    folder.add("x", array=np.array([{"motion": 1}], dtype=object))
    reason, detail = folder.why("x")
    assert reason == "broken_motion"
    assert "x.npy holds Python objects (a pickle)" in detail


def test_widths_of_other_data_say_whose_they_are(folder: Folder) -> None:
    folder.add("x", array=np.zeros((50, 251)))
    assert folder.why("x")[0] == "wrong_width"
    assert "has the shape (50, 251)" in folder.why("x")[1]
    assert "looks like features of 'kit'" in folder.why("x")[1]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((50, 22, 3), "positions of the joints of 'humanml3d'"),
        ((263,), r"needs (frames, 263)"),
        ((50, 66), "needs (frames, 263)"),
        ((), "needs (frames, 263)"),
    ],
)
def test_other_shapes(folder: Folder, shape: tuple[int, ...], said: str) -> None:
    folder.add("x", array=np.zeros(shape))
    reason, detail = folder.why("x")
    assert reason == "wrong_width"
    assert said in detail


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "x.npy is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page?"),
        (b"\x00" * 200, "is damaged, or holds no arrays"),
        (b"\x93NUMPY\x01\x00\x10\x00garbage", "is damaged, or holds no arrays"),
    ],
)
def test_files_that_are_no_arrays(folder: Folder, content: bytes, said: str) -> None:
    folder.add("x")
    folder.vectors("x").write_bytes(content)
    reason, detail = folder.why("x")
    assert (reason, said in detail) == ("broken_motion", True), detail


def test_arrays_cut_short(folder: Folder) -> None:
    folder.add("x")
    content = folder.vectors("x").read_bytes()
    folder.vectors("x").write_bytes(content[:-100])
    assert (
        "cut short: an array of shape (60, 263) takes 63120 bytes, and 63020 are there" in folder.why("x")[1]
    )


def test_missing_files(folder: Folder) -> None:
    folder.list("nothing").add("wordless").text("wordless").unlink()
    reasons = {one.id: (one.reason, one.detail) for one in folder.add("good").read().dropped}
    assert reasons["nothing"][0] == "missing_motion"
    assert reasons["nothing"][1].endswith("nothing.npy is not there")
    assert reasons["wordless"][0] == "missing_text"
    assert reasons["wordless"][1].endswith("wordless.txt is not there")


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("", "no_caption", "x.txt is empty"),
        ("  \r\n\n", "no_caption", "x.txt is empty"),
        ("#a/DET#0.0#0.0", "no_caption", "line 1: the caption is empty"),
        ("walks#w/V#0.0", "broken_text", "3 parts between '#'"),
        ("walks#w/V#0.0#0.0#1", "broken_text", "5 parts between '#'"),
        ("walks#w/V#0.0#soon", "broken_text", "'soon' is no time in seconds"),
        ("walks#w/V#0.0#inf", "broken_text", "'inf' is no time in seconds"),
        ("walks#w/V#-1.0#2.0", "wrong_span", "from -1 s to 2 s begins before the motion"),
        ("walks#w/V#3.0#2.0", "wrong_span", "from 3 s to 2 s has no length"),
        ("walks#w/V#3.0#3.0", "wrong_span", "has no length"),
        ("walks#w/V#3.0#9.0", "wrong_span", "begins behind the end: the motion has 60 frames, 3 s"),
        (b"ok\ncaf\xe9 walks#w/V#0#0", "broken_text", "x.txt, line 2: not UTF-8"),
    ],
)
def test_captions_that_cannot_be_used(folder: Folder, text: str | bytes, reason: str, said: str) -> None:
    found = folder.add("x", text=text).why("x")
    assert found[0] == reason
    assert said in found[1]


def test_one_bad_line_leaves_the_others(folder: Folder) -> None:
    found = folder.add("x", text=LINE + "#broken#0#0\n").read()
    assert [c.captions for c in found.clips] == [("a person walks",)]
    assert [(d.id, d.reason) for d in found.dropped] == [("x:2", "no_caption")]


def test_ids_that_are_there_twice(folder: Folder) -> None:
    found = folder.add("x").list("x").read()
    assert len(found.clips) == 1
    assert [(d.id, d.reason) for d in found.dropped] == [("x", "duplicate_id")]
    assert "train.txt, line 2: 'x' is there a second time" in found.dropped[0].detail


def test_numbers_that_are_none_are_found_when_the_clip_is_read(folder: Folder) -> None:
    array = np.zeros((50, 263), dtype="float32")
    array[7, 3] = np.nan
    array[9, 0] = np.inf
    (clip,) = folder.add("x", array=array).read().clips
    with pytest.raises(MotionFileError, match=r"x\.npy has numbers .* frame 7 and in 1 frames more") as error:
        read_clip(clip)
    assert error.value.reason == "not_finite"


@pytest.mark.parametrize("dtype", ["complex64", "bool", "<U3"])
def test_values_that_are_no_real_numbers(folder: Folder, dtype: str) -> None:
    (clip,) = folder.add("x", array=np.zeros((50, 263), dtype=dtype)).read().clips
    with pytest.raises(MotionFileError, match="needed real numbers"):
        read_clip(clip)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize("column", ["a", "й"])
def test_tables_with_named_columns(folder: Folder, column: str) -> None:
    folder.add("x", array=np.zeros(50, dtype=[(column, "f4")]))
    assert "named columns" in folder.why("x")[1]


def test_files_replaced_after_the_folder_was_read(folder: Folder) -> None:
    (clip,) = folder.add("x", 60).read().clips
    np.save(folder.vectors("x"), np.zeros((40, 263)))
    with pytest.raises(MotionFileError, match="has 40 frames; clip 'x' is its frames 0 to 60"):
        read_clip(clip)


def test_folders_and_splits_that_are_not_there(folder: Folder, tmp_path: Path) -> None:
    folder.add("x")
    (folder.path / "val.txt").write_text("x\n")
    with pytest.raises(FileNotFoundError, match=r"no split 'test' \(test.txt\); there are: 'train', 'val'"):
        folder.read(split="test")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_folder(tmp_path / "none", HUMANML3D)
    with pytest.raises(FileNotFoundError, match=r"has no folder new_joint_vecs.*HumanML3D"):
        read_folder(tmp_path, HUMANML3D)
    (folder.path / "train.txt").write_text("\n\n")
    with pytest.raises(ValueError, match=r"train\.txt is empty"):
        folder.read()
    (folder.path / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"train\.txt: not UTF-8"):
        folder.read()


def test_no_clip_at_all_says_why(folder: Folder) -> None:
    folder.add("x").add("y")
    with pytest.raises(ValueError, match=r"none of the 2 clips of train.txt can be used.*'x'.*'humanml3d'"):
        read_folder(folder.path, KIT)


def test_clips_of_arrays_in_memory() -> None:
    clip = MotionClip("m", ("walks",), torch.arange(263.0 * 9).reshape(9, 263), "humanml3d", 2, 5)
    assert clip.frames == 3
    assert torch.equal(read_clip(clip)[0], torch.arange(263.0) + 526)
    bad = MotionClip("m", ("walks",), np.zeros((9, 251)), "humanml3d", 0, 9)
    with pytest.raises(MotionFileError, match="clip 'm' has the shape"):
        read_clip(bad)


def test_headers_of_archives_are_no_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npy", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(MotionFileError, match="damaged, or holds no arrays"):
        npy_header(tmp_path / "x.npy")


# -- the part that a visit takes -------------------------------------------------------------------------------


def test_crops_follow_the_rule() -> None:
    drawn = [crop(103, seed=0, id=f"{n}", epoch=n % 7) for n in range(6000)]
    assert {length for _, length in drawn} == {100, 96}
    shorter = sum(length == 96 for _, length in drawn) / len(drawn)
    assert abs(shorter - 1 / 3) < 4 * (2 / 9 / 6000) ** 0.5
    assert {start for start, length in drawn if length == 100} == set(range(4))
    assert {start for start, length in drawn if length == 96} == set(range(8))
    starts = np.bincount([start for start, length in drawn if length == 96])
    assert starts.min() > 180  # of 250 each


def test_crops_are_functions_of_their_arguments() -> None:
    first = [crop(103, seed=1, id="000021", epoch=epoch) for epoch in range(50)]
    assert first == [crop(103, seed=1, id="000021", epoch=epoch) for epoch in range(50)]
    assert first != [crop(103, seed=2, id="000021", epoch=epoch) for epoch in range(50)]
    assert first != [crop(103, seed=1, id="000022", epoch=epoch) for epoch in range(50)]
    assert len(set(first)) > 3
    assert first[:5] == [(1, 100), (0, 100), (0, 96), (0, 100), (3, 96)]  # a change would change runs


def test_crops_at_the_ends() -> None:
    assert {crop(4, seed=0, id=f"{n}", epoch=0) for n in range(50)} == {(0, 4)}
    assert {crop(199, seed=0, id=f"{n}", epoch=0)[1] for n in range(50)} == {196, 192}
    assert {crop(500, seed=0, id=f"{n}", epoch=0)[1] for n in range(50)} == {196}
    assert crop(199, seed=0, id="x", epoch=None) == (0, 196)
    with pytest.raises(ValueError, match="clip 'x' has 3 frames; needed 4"):
        crop(3, seed=0, id="x", epoch=0)


# -- statistics ------------------------------------------------------------------------------------------------


def write_stats(path: Path, mean: np.ndarray, std: np.ndarray) -> None:
    np.save(path / "Mean.npy", mean)
    np.save(path / "Std.npy", std)


def test_statistics_of_a_folder(folder: Folder) -> None:
    write_stats(folder.path, np.arange(263.0), np.full(263, 2.0))
    stats = read_stats(folder.path, HUMANML3D)
    assert (stats.codec, stats.fps, stats.config.name) == ("humanml3d", 20, "HumanML3D")
    assert stats.mean_D.tolist() == list(range(263))
    assert set(stats.std_D.tolist()) == {2.0}


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (
            np.zeros(251),
            np.ones(263),
            r"Mean.npy has the shape \(251,\); the codec 'humanml3d' needs \(263,\)",
        ),
        (np.zeros(263), np.ones((1, 263)), r"Std.npy has the shape \(1, 263\)"),
        (np.zeros(263), np.zeros(263), r"Mean.npy and .*Std.npy: feature 0 .* deviation 0"),
        (np.full(263, np.nan), np.ones(263), "feature 0 has the mean nan"),
        (np.zeros(263), np.ones(263, dtype=complex), "Std.npy holds values of the type complex128"),
        (np.zeros(263), np.array([None] * 263), "Std.npy holds Python objects"),
    ],
)
def test_statistics_that_cannot_be_used(folder: Folder, mean: np.ndarray, std: np.ndarray, said: str) -> None:
    write_stats(folder.path, mean, std)
    with pytest.raises(ValueError, match=said):
        read_stats(folder.path, HUMANML3D)


def test_statistics_that_are_not_there(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError, match=r"Mean\.npy is not there"):
        read_stats(folder.path, HUMANML3D)


def test_measured_statistics_are_those_of_all_frames_and_blocks(folder: Folder) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(1000, np.linspace(0.1, 3, 263), (n, 263)) for n in (50, 70)]
    for n, array in enumerate(arrays):
        array[:, 259:] = 1  # feet that never leave the floor
        folder.add(f"{n}", array=array)
    stats = measured_stats(folder.read().clips, HUMANML3D, "mine")
    frames = np.concatenate([array.astype("float32") for array in arrays]).astype("float64")
    np.testing.assert_allclose(stats.mean_D.numpy(), frames.mean(0), rtol=1e-6)
    std = frames.std(0)
    np.testing.assert_allclose(float(stats.std_D[0]), std[0], rtol=1e-4)
    np.testing.assert_allclose(stats.std_D[4:67].numpy(), std[4:67].mean(), rtol=1e-4)
    assert stats.std_D[259:].tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="no frames to measure"):
        measured_stats([], HUMANML3D)
