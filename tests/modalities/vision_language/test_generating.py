"""Models behind servers and in folders that are asked about pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

import tiny_vision
from conftest import save_tiny_model
from generation.fake_server import FakeServer
from modalities.image.image_runs import picture, png
from prefopt.generation import Request, Settings, collect
from prefopt.modalities.vision_language.building.steps import said
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.generating import (
    PicturedServer,
    Speaker,
    data_url,
    request_about,
)
from prefopt.modalities.vision_language.prompts import MARK, VIDEO_MARK
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources.pictures import ImageRef
from prefopt.sources.videos import ClipRef

OWN = Picture(ImageRef(png(picture(0))))
OTHER = Picture(ImageRef(png(picture(1))))


def read(url: str) -> bytes:
    return base64.b64decode(url.partition("base64,")[2])


def test_a_server_is_sent_the_pictures_in_their_places(tmp_path):
    messages = [{"role": "user", "content": "what is this ?"}]
    requests = [
        request_about("two", messages, (OWN, OTHER)),
        request_about("plain", "what ?", (OWN,)),
        request_about("none", messages, ()),
    ]
    with FakeServer(reply=lambda body: str(len(body["messages"]))) as server:
        collect(PicturedServer(server.url, "tiny"), requests, Settings(), tmp_path / "journal.jsonl")
        sent = {body["seed"]: body["messages"] for body in server.bodies}
        assert len(sent) == 3
        contents = [message[0]["content"] for message in sent.values()]
        pictured = sorted((c for c in contents if isinstance(c, list)), key=len)
        assert [[block["type"] for block in content] for content in pictured] == [
            ["image_url", "text"],
            ["image_url", "image_url", "text"],
        ]
        assert read(pictured[1][0]["image_url"]["url"]) == png(picture(0))
        assert read(pictured[1][1]["image_url"]["url"]) == png(picture(1))
        assert pictured[1][2]["text"] == "what is this ?"
        assert messages[0]["content"] in contents
        again = collect(PicturedServer(server.url, "tiny"), requests, Settings(), tmp_path / "journal.jsonl")
        assert len(server.bodies) == 3
        assert len(again) == 3


def test_a_server_is_sent_a_video_as_its_frames_in_order(tmp_path):
    clips = (
        ClipRef(tuple(ImageRef(png(picture(n))) for n in range(4)), frames=(0, 2)),
        ClipRef((ImageRef(png(picture(4))), ImageRef(png(picture(5)))), frames=(1,)),
    )
    wide = ClipRef((ImageRef(png(picture(6).resize((400, 300)))),), frames=(0,))
    with FakeServer(reply=lambda body: "fine") as server:
        requests = [
            request_about("video", said("what is this ?"), (Video(clips),)),
            request_about("wide", said("what ?"), (Video((wide,)),)),
            Request(
                "both", [{"role": "user", "content": f"{MARK}then {VIDEO_MARK}what ?"}], template={"pictures": (OWN, Video(clips[1:]))}
            ),
        ]  # fmt: skip
        collect(PicturedServer(server.url, "tiny"), requests, Settings(), tmp_path / "journal.jsonl")
        content = {
            len(sent): sent
            for body in server.bodies
            for sent in [body["messages"][0]["content"]]
            if "then " not in str(sent)
        }
        (mixed,) = (
            sent
            for body in server.bodies
            for sent in [body["messages"][0]["content"]]
            if "then " in str(sent)
        )
        collect(PicturedServer(server.url, "tiny"), requests, Settings(), tmp_path / "journal.jsonl")
        assert len(server.bodies) == 3
    urls = [block["image_url"]["url"] for block in content[4][:3]]
    assert content[4][3] == {"type": "text", "text": "what is this ?"}
    for url, n in zip(urls, (0, 2, 5), strict=True):
        assert url.startswith("data:image/png;")
        with Image.open(io.BytesIO(read(url))) as seen:
            assert seen.convert("RGB").tobytes() == picture(n).tobytes()
    (jpeg, _) = content[2]
    assert jpeg["image_url"]["url"].startswith("data:image/jpeg;")
    with Image.open(io.BytesIO(read(jpeg["image_url"]["url"]))) as seen:
        assert seen.size == (400, 300)
    assert [block["type"] for block in mixed] == ["image_url", "text", "image_url", "text"]


def test_a_function_writes_texts_alone(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def upper(text):\n    return ' ' + text.upper()\n")
    speaker = Speaker(f"{path}:upper", "writer", 2, texts=True)
    speaker.check()
    requests = [Request("a", [{"role": "user", "content": "word"}], 2)]
    found = collect(speaker, requests, Settings(), tmp_path / "journal.jsonl")
    assert [(one.text, one.sample, one.ended) for one in found] == [("WORD", 0, True), ("WORD", 1, True)]
    path.write_text("def upper(text):\n    return text\n")
    with pytest.raises(ValueError, match="was begun with model"):
        collect(
            Speaker(f"{path}:upper", "writer", 2, texts=True),
            requests,
            Settings(),
            tmp_path / "journal.jsonl",
        )
    with pytest.raises(ValueError, match="--captioner"):
        Speaker(f"{path}:upper", "captioner", 2).check()


def test_a_journal_tells_pictures_apart_by_their_content(tmp_path):
    with FakeServer() as server:
        generator = PicturedServer(server.url, "tiny")
        collect(generator, [request_about("a", "what ?", (OWN,))], Settings(), tmp_path / "j.jsonl")
        same = Picture(ImageRef(png(picture(0)), "elsewhere"))
        collect(generator, [request_about("a", "what ?", (same,))], Settings(), tmp_path / "j.jsonl")
        with pytest.raises(ValueError, match="answers another prompt under the id 'a'"):
            collect(generator, [request_about("a", "what ?", (OTHER,))], Settings(), tmp_path / "j.jsonl")


def test_files_are_sent_as_they_are_unless_a_server_would_see_them_otherwise():
    jpeg = png(picture(0), format="JPEG")
    assert data_url(Picture(ImageRef(jpeg))) == f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned = Picture(ImageRef(png(picture(0), format="JPEG", exif=exif)))
    for other in (turned, Picture(ImageRef(png(picture(0), format="BMP"))), Picture(OWN.ref, "crop", 1)):
        url = data_url(other)
        assert url.startswith("data:image/png;")
        with Image.open(io.BytesIO(read(url))) as seen:
            assert seen.size == other.size
            assert seen.tobytes() == other.image().tobytes()


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision.save_tiny("llava", tmp_path_factory.mktemp("vlm") / "llava")


def test_a_rewriter_may_be_a_model_of_text_and_a_captioner_may_not(llava, tmp_path):
    text = save_tiny_model(tmp_path / "text")
    with pytest.raises(
        ValueError, match=r"--captioner .*text: .* model of images and text.*openai:MODEL@URL"
    ):
        Speaker(str(text), "captioner", 2).check()
    for folder in (text, llava):
        Speaker(str(folder), "rewriter", 2, texts=True).check()
    speaker = Speaker(str(text), "rewriter", 2, texts=True)
    batches = speaker.generate([request_about("a", "Sort: pear", ())], Settings(max_new_tokens=2))
    assert [r.id for batch in batches for r in batch] == ["a"]


@pytest.mark.parametrize("name", ["openai:model", "openai:@http://here", "openai:m@ftp://here"])
def test_a_server_is_named_by_model_and_address(name):
    with pytest.raises(ValueError, match="needed openai:MODEL@URL"):
        Speaker(name, "captioner", 2).check()


def test_nobody_there_is_found_out_at_once():
    with pytest.raises(OSError, match="no server answers"):
        Speaker("openai:m@http://127.0.0.1:9/v1", "captioner", 2).check()
