"""Models that answer prompts with pictures, in this process or behind a server, by the names that commands give them.

    DIR                  folder or hub id of a vision-language model
    openai:MODEL@URL     a model behind a server that speaks OpenAI's protocol

A request carries its pictures in its template. A server is sent them as `image_url` blocks that hold the file itself.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prefopt.comparisons import Item
from prefopt.evaluation.contest import SERVER, parse_server
from prefopt.generation.base import Generator, Prompt, Request, Response, Settings
from prefopt.generation.server import ServerGenerator, check_server
from prefopt.modalities.models import folder_of
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.media import Medium, pictures_of
from prefopt.modalities.vision_language.prompts import in_blocks
from prefopt.modalities.vision_language.rows import pictured

SENT_AS_THEY_ARE = ("JPEG", "PNG", "WEBP")
"""Formats of files that servers read."""


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
        """Messages with the pictures in their places."""
        pictures = pictures_of(request.template)
        if not pictures:
            return request.prompt
        prompt = request.prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        urls = iter([data_url(picture) for picture in pictures])

        def sent(block: dict[str, Any]) -> dict[str, Any]:
            if block["type"] != "image":
                return block
            return {"type": "image_url", "image_url": {"url": next(urls)}}

        return [
            {**message, "content": [sent(block) for block in message["content"] or []]}
            for message in in_blocks(messages)
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
    file = io.BytesIO()
    picture.image().save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass
class Speaker:
    """A model by name, loaded when there is something to ask.

    Attributes:
        name: see the top of this file.
        role: what it is asked for, for messages, such as "captioner".
        batch_size: answers at once, of a model in this process.
        texts: whether it is asked without pictures, so that a model of text will do.
    """

    name: str
    role: str
    batch_size: int
    texts: bool = False
    _generator: Generator | None = field(default=None, init=False, repr=False)

    @cached_property
    def identity(self) -> str:
        """Names the model in journals: a server's name for it, or a digest of the files in a folder."""
        from prefopt.models.identity import saved_fingerprint

        if self.name.startswith(SERVER):
            return parse_server(self.name)[0]
        folder = Path(folder_of(self.name)).expanduser()
        return saved_fingerprint(folder) if folder.is_dir() else self.name

    def check(self) -> None:
        """Find out now what would otherwise be found out after expensive work.

        Raises:
            ValueError, OSError: no such model, or nobody is there.
        """
        from prefopt.modalities.vision_language.opening import open_images
        from prefopt.models.sources import CAUSAL, PICTURED, check_causal

        if self.name.startswith(SERVER):
            model, url = parse_server(self.name)
            check_server(url, model)
            return
        try:
            folder = folder_of(self.name)
            if self._of_text(folder):
                check_causal(folder, loader=CAUSAL)
            else:
                check_causal(folder, loader=PICTURED)
                open_images(folder)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"--{self.role} {self.name}: {error}. Needed a model's folder, or openai:MODEL@URL"
            ) from error

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
        if self._of_text(folder_of(self.name)):
            from prefopt.evaluation.contest import local

            of_text: Generator = local(self.name, self.batch_size)
            return of_text
        found: Generator = pictured_generator(self.name, self.batch_size)
        return found

    def release(self) -> None:
        """Let go of the model, so that the next one has room."""
        self._generator = None
