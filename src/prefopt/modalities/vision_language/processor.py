"""A model's processor: loading it, and saving it with the trained model as it was.

transformers builds a processor of all its parts, one for videos among them, which needs torchvision. Images alone do not:
where torchvision is absent, the processor is loaded without its part for videos.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefopt.models.sources import check_source, file_of, remote_code_message, whole_model

FILES = (
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("chat_template.json", "chat_template.jinja"),
)
"""What a processor consists of beside its tokenizer."""


class NoVideos(dict[str, Any]):
    """Stands where a processor keeps its part for videos, and knows its settings (a mapping, so that it can be written down)."""

    model_input_names: tuple[str, ...] = ()
    _auto_class = None

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> NoVideos:
        """The settings in a folder or hub repository."""
        source = str(args[0])
        for name, key in (
            ("video_preprocessor_config.json", None),
            ("processor_config.json", "video_processor"),
        ):
            path = file_of(source, name)
            if path is None:
                continue
            values = json.loads(path.read_text("utf-8"))
            found = values if key is None else values.get(key)
            if isinstance(found, dict):
                return cls(found)
        return cls()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Say what is missing."""
        raise ImportError("videos need torchvision: install the build that belongs to this torch")


def load_processor(source: str) -> Any:
    """The processor of a folder or hub id, an adapter's base model included.

    Raises:
        FileNotFoundError: no model there.
        ValueError: it has no processor of images, or one that needs code of its own.
    """
    from transformers import AutoProcessor

    check_source(source)
    base = source if any(file_of(source, name) for name in FILES) else whole_model(source)
    try:
        with without_videos():
            processor = AutoProcessor.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if "trust_remote_code" in str(error):
            raise ValueError(remote_code_message(f"the processor of {base}")) from None
        raise ValueError(
            f"{base} has no processor that could be loaded ({' '.join(str(error).split())[:200]}): save it beside the model, "
            "as processor.save_pretrained(folder) does"
        ) from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ValueError(
            f"{base} holds a {type(processor).__name__}; needed a processor of images and text: save it beside the model, as "
            "processor.save_pretrained(folder) does"
        )
    return processor


@contextlib.contextmanager
def without_videos() -> Iterator[None]:
    """Within it, where torchvision is absent, processors are built without their part for videos."""
    from transformers import processing_utils
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        yield
        return
    theirs: Any = processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING
    mixin: Any = processing_utils.ProcessorMixin
    checked = mixin.check_argument_for_proper_class

    class Mapping:
        def __getitem__(self, name: str) -> Any:
            return NoVideos if name == "video_processor" else theirs[name]

        def __getattr__(self, name: str) -> Any:
            return getattr(theirs, name)

    def check(self: Any, name: str, argument: Any) -> Any:
        return type(argument) if isinstance(argument, NoVideos) else checked(self, name, argument)

    processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING = Mapping()
    mixin.check_argument_for_proper_class = check
    try:
        yield
    finally:
        processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING = theirs
        mixin.check_argument_for_proper_class = checked


def save_processor(folder: Path, source: str) -> None:
    """Put the processor's files beside a saved model and its tokenizer, as they were."""
    base = source if any(file_of(source, name) for name in FILES) else whole_model(source)
    for name in FILES:
        file = file_of(base, name)
        if file is not None:
            shutil.copyfile(file, folder / name)
