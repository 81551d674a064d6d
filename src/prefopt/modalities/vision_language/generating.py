"""Models that answer prompts with pictures, in this process or behind a server, by the names that commands give them.

    DIR                  folder or hub id of a vision-language model
    openai:MODEL@URL     a model behind a server that speaks OpenAI's protocol
    FILE.py:NAME         a function of the user's, from a text to a text, where nothing is shown

A request carries its pictures and videos in its template. A server is sent a picture as an `image_url` block that holds the
file itself, and a video as its chosen frames in order, an `image_url` block each, which is what every such server takes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.comparisons import Item
from prefopt.evaluation.contest import SERVER, parse_server
from prefopt.evaluation.user_files import object_of
from prefopt.generation.base import Generator, Prompt, Request, Response, Settings, last_turn
from prefopt.generation.server import ServerGenerator, check_server
from prefopt.modalities.models import folder_of
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.media import Medium, pictures_of
from prefopt.modalities.vision_language.placing import pictured
from prefopt.modalities.vision_language.prompts import in_blocks
from prefopt.modalities.vision_language.video.frames import images_of
from prefopt.modalities.vision_language.video.videos import Video

if TYPE_CHECKING:
    from PIL import Image

SENT_AS_THEY_ARE = ("JPEG", "PNG", "WEBP")
"""Formats of files that servers read."""
EXACT_PIXELS = 256 * 256
"""Frames of more pixels are sent as JPEG: a PNG of a large one costs more time and bytes than what it adds is worth."""
JPEG_QUALITY = 95


def pictured_generator(source: str, batch_size: int, num_beams: int = 1) -> Any:
    """A `PicturedGenerator` of a model, on the GPU where there is one.

    Args:
        source: folder or hub id of a vision-language model, or of an adapter on one; or a world.
        batch_size: answers at once.
        num_beams: of a beam search; 1 for none.

    Raises:
        FileNotFoundError, ValueError, OSError: no model or processor there that could be used.
    """
    import torch

    from prefopt.modalities.vision_language.opening import open_images, pictured_likelihood
    from prefopt.modalities.vision_language.samples import PicturedGenerator
    from prefopt.models.loading import load_model
    from prefopt.models.sources import PICTURED

    folder = folder_of(source)
    images = open_images(folder)
    likelihood = pictured_likelihood(images, None, folder)
    model: Any = load_model(folder, trainable=False, loader=PICTURED).model
    model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return PicturedGenerator(
        model, images.processor.tokenizer, batch_size, likelihood=likelihood, num_beams=num_beams
    )


def request_about(name: str, prompt: Prompt, pictures: tuple[Medium, ...], n: int = 1) -> Request:
    """A request whose prompt has a place for each picture, at its beginning where it has none yet.

    Args:
        name: id of the request.
        prompt: text or messages.
        pictures: shown with it.
        n: answers that are wanted.

    Raises:
        UnusableItem: the prompt has places for another number of pictures.
    """
    if not pictures:
        return Request(name, prompt, n)
    asked = pictured(Item({"prompt": prompt}, ""), pictures).condition["prompt"]
    return Request(name, asked, n, template={"pictures": pictures})


class PicturedServer(ServerGenerator):
    """Answers of a server that takes images; arguments as of `ServerGenerator`."""

    carries = frozenset({"pictures"})

    def messages(self, request: Request) -> Prompt:
        """Messages with the pictures, and the frames of videos, in their places."""
        media = pictures_of(request.template)
        if not media:
            return request.prompt
        prompt = request.prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        urls = iter([urls_of(medium) for medium in media])

        def sent(block: dict[str, Any]) -> list[dict[str, Any]]:
            if block["type"] not in ("image", "video"):
                return [block]
            return [{"type": "image_url", "image_url": {"url": url}} for url in next(urls)]

        return [
            {**message, "content": [one for block in message["content"] or [] for one in sent(block)]}
            for message in in_blocks(messages)
        ]


def urls_of(medium: Medium) -> list[str]:
    """What is sent of a picture, or of the frames of a video's clips in order."""
    if not isinstance(medium, Video):
        return [data_url(medium)]
    return [
        image_url(image, exact=image.width * image.height <= EXACT_PIXELS)
        for clip in medium.clips
        for image in images_of(clip)
    ]


def data_url(picture: Picture) -> str:
    """A picture within a text: the file's bytes where servers read such files, or else a PNG."""
    from PIL import Image

    from prefopt.sources.pictures import EXIF_ORIENTATION

    if picture.change is None and picture.ref.facts.format in SENT_AS_THEY_ARE:
        data = picture.ref.read()
        with Image.open(io.BytesIO(data)) as opened:
            upright = opened.getexif().get(EXIF_ORIENTATION, 1) == 1
        if upright:
            return f"data:image/{picture.ref.facts.format.lower()};base64,{base64.b64encode(data).decode()}"
    return image_url(picture.image())


def image_url(image: Image.Image, exact: bool = True) -> str:
    """Pixels within a text, as PNG, or as JPEG where they need not be exact."""
    file = io.BytesIO()
    kind = "png" if exact else "jpeg"
    image.save(file, kind, **({} if exact else {"quality": JPEG_QUALITY, "subsampling": 0}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


class FunctionGenerator:
    """Answers of a user's function, from a text to a text.

    Args:
        name: FILE.py:NAME.
        role: what it is to be, for messages.

    Raises:
        FileNotFoundError, ValueError: no such function.
    """

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self._function = object_of(name, role, "function")
        if not callable(self._function):
            raise ValueError(
                f"{name} is a {type(self._function).__name__} and no function, which --{role} needs"
            )

    @property
    def identity(self) -> str:
        """Names the function and its file."""
        return function_identity(self.name)

    def generate(self, requests: Sequence[Request], settings: Settings) -> Iterator[list[Response]]:
        """Responses one by one.

        Raises:
            ValueError: the function fails, or returns something else.
        """
        for request in requests:
            for sample in request.samples:
                try:
                    text = self._function(last_turn(request.prompt))
                except Exception as error:  # whatever a user's function raises
                    raise ValueError(f"{self.name} failed: {type(error).__name__}: {error}") from error
                if not isinstance(text, str):
                    raise ValueError(f"{self.name} returned {type(text).__name__}: needed a text")
                yield [Response(request.id, sample, text.strip(), 0, ended=True)]


def function_identity(name: str) -> str:
    """Name and digest of the file in FILE.py:NAME: another file is another function."""
    path, _, function = name.rpartition(":")
    data = Path(path).expanduser().read_bytes()
    return f"{function} of {blake2b(data, digest_size=16).hexdigest()}"


@dataclass
class Speaker:
    """A model by name, loaded when there is something to ask.

    Attributes:
        name: see the top of this file.
        role: what it is asked for, for messages, such as "captioner".
        batch_size: answers at once, of a model in this process.
        texts: whether it is asked without pictures, so that a model of text, or a function, will do.
        videos: whether it is asked with videos, which not every model of pictures reads.
    """

    name: str
    role: str
    batch_size: int
    texts: bool = False
    videos: bool = False
    _generator: Generator | None = field(default=None, init=False, repr=False)

    @cached_property
    def identity(self) -> str:
        """Names the model in journals: a server's name for it, or a digest of the files in a folder."""
        from prefopt.models.identity import saved_fingerprint

        if self.name.startswith(SERVER):
            return parse_server(self.name)[0]
        if self._is_function:
            return function_identity(self.name)
        folder = Path(folder_of(self.name)).expanduser()
        return saved_fingerprint(folder) if folder.is_dir() else self.name

    def check(self) -> None:
        """Find out now what would otherwise be found out after expensive work.

        Raises:
            ValueError, OSError: no such model, or nobody is there.
        """
        from prefopt.modalities.vision_language.opening import open_images
        from prefopt.modalities.vision_language.video.preparing import preparer_of
        from prefopt.models.sources import CAUSAL, PICTURED, check_causal

        if self.name.startswith(SERVER):
            model, url = parse_server(self.name)
            check_server(url, model)
            return
        if self._is_function:
            FunctionGenerator(self.name, self.role)
            return
        try:
            folder = folder_of(self.name)
            if self._of_text(folder):
                check_causal(folder, loader=CAUSAL)
            else:
                check_causal(folder, loader=PICTURED)
                images = open_images(folder)
                if self.videos:
                    preparer_of(images.processor)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"--{self.role} {self.name}: {error}. Needed a model's folder, or openai:MODEL@URL"
            ) from error

    @property
    def _is_function(self) -> bool:
        return self.texts and ".py:" in self.name

    def _of_text(self, folder: str) -> bool:
        from prefopt.modalities.vision_language import claims

        return self.texts and not claims(folder)

    def generate(self, requests: Sequence[Request], settings: Settings) -> Iterator[list[Response]]:
        """Responses as they arrive."""
        if self._generator is None:
            self._generator = self._opened()
        return self._generator.generate(requests, settings)

    def _opened(self) -> Generator:
        if self.name.startswith(SERVER):
            model, url = parse_server(self.name)
            return PicturedServer(url, model)
        if self._is_function:
            return FunctionGenerator(self.name, self.role)
        if self._of_text(folder_of(self.name)):
            from prefopt.evaluation.contest import local

            of_text: Generator = local(self.name, self.batch_size)
            return of_text
        found: Generator = pictured_generator(self.name, self.batch_size)
        return found

    def release(self) -> None:
        """Let go of the model, so that the next one has room."""
        self._generator = None
