"""Load a text-to-image pipeline the way diffusers does, make its network trainable, free parts of it.

Any `StableDiffusionPipeline` (SD 1.x, 2.x), `StableDiffusionXLPipeline` or `StableDiffusion3Pipeline` saved by
diffusers. Safetensors only. Only the network that removes noise is trained. The VAE is kept in float32: SDXL's
overflows in half precision. `pipeline_tensors` encodes and samples with what is loaded here, `pipeline_saving`
writes what was trained.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefopt.modalities.image.models.denoiser import Family, add_lora
from prefopt.models.identity import fingerprint
from prefopt.models.loading import LoraSettings, disable_dropout, resolve_dtype
from prefopt.models.loading_report import load_whole
from prefopt.models.networks import adapters_off
from prefopt.models.sources import remote_code_message

FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
}
NETWORK: dict[Family, str] = {"sd": "unet", "sdxl": "unet", "sd3": "transformer"}
"""The trained component."""
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that training has no use for; a saved pipeline keeps them."""


@dataclass
class LoadedPipeline:
    """A text-to-image pipeline with its network ready to train.

    Attributes:
        pipe: the diffusers pipeline; parts that were freed are None.
        family: sd, sdxl or sd3.
        source: folder or hub id as given.
        folder: the files it was loaded from.
        adapter: name of the trained adapter, None under full fine-tuning.
    """

    pipe: Any
    family: Family
    source: str
    folder: Path
    adapter: str | None = None
    _dtype: torch.dtype = torch.float32
    _identities: dict[str, str] = field(default_factory=dict)

    @property
    def denoiser(self) -> nn.Module:
        """The trained network, U-Net or transformer."""
        network: nn.Module = getattr(self.pipe, NETWORK[self.family])
        return network

    @property
    def model(self) -> nn.Module:
        """The same, under the name that every policy has."""
        return self.denoiser

    @property
    def vae(self) -> Any:
        """The autoencoder, None after `free`."""
        return self.pipe.vae

    @property
    def scheduler(self) -> Any:
        """As the pipeline was saved with it."""
        return self.pipe.scheduler

    @property
    def text_encoders(self) -> dict[str, Any]:
        """By name; without those that were freed or that the pipeline lacks."""
        return {
            name: value
            for name in self.parts("text_encoders")
            if (value := getattr(self.pipe, name)) is not None
        }

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.denoiser.parameters()).device

    @property
    def image_size(self) -> int:
        """Side in pixels that the network was made for."""
        size: Any = self.denoiser.config
        return int(size.sample_size) * int(self.pipe.vae_scale_factor)

    def to(self, device: torch.device | str) -> LoadedPipeline:
        """Move every part that is present, in place."""
        self.pipe.to(device)
        return self

    def as_reference(self) -> contextlib.AbstractContextManager[None]:
        """While open, the network works as before training: without its adapter.

        Raises:
            ValueError: it has none.
        """
        if self.adapter is None:
            raise ValueError(
                f"{self.source} is trained without adapters: load a frozen copy as the reference"
            )
        return adapters_off(self.denoiser)

    def parts(self, group: str) -> list[str]:
        """Components of a group ("vae", "text_encoders") that the files hold."""
        if group not in ("vae", "text_encoders"):
            raise ValueError(f"no group of parts named {group!r}: vae or text_encoders")
        prefix = group.removesuffix("s")
        return [name for name in component_classes(self.folder) if name.startswith(prefix)]


# -- load ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the notes of transformers on image processors that fall back to Pillow, which none of this needs."""
    from transformers import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def is_pipeline(source: str) -> bool:
    """Whether a folder or hub id holds a diffusers pipeline; False where there is nothing at all."""
    from huggingface_hub import hf_hub_download

    folder = Path(source).expanduser()
    if folder.is_dir() or looks_like_path(source):
        return (folder / "model_index.json").is_file()
    try:
        hf_hub_download(source, "model_index.json")
    except (OSError, ValueError):  # no such repository or file, no network and not in the cache, not a hub id
        return False
    return True


def looks_like_path(source: str) -> bool:
    """Whether a folder was meant, rather than a hub id."""
    return source.startswith((".", "/", "~")) or source.count("/") != 1


def check_pipeline_source(source: str, families: Mapping[str, Family] = FAMILIES) -> Family:
    """The family of a pipeline's folder or hub id, with plain errors; reads its index only.

    Args:
        source: folder or hub id.
        families: by the class of the pipeline.

    Raises:
        FileNotFoundError: there is no pipeline.
        ValueError: it is of a class that cannot be trained here.
    """
    from diffusers import DiffusionPipeline

    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            present = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            what = "is a LoRA, not a pipeline" if "pytorch_lora_weights" in present else "holds no pipeline"
            raise FileNotFoundError(
                f"{folder} {what}: needed model_index.json, as a diffusers pipeline's save_pretrained writes it; found "
                f"{present}. A finished run without LoRA keeps its pipeline in the folder `model/` inside"
            )
    elif looks_like_path(source):
        raise FileNotFoundError(
            f"no pipeline folder at {source}; give a folder saved by save_pretrained, or a hub id"
        )
    with quiet():
        index = DiffusionPipeline.load_config(str(folder) if folder.is_dir() else source)
    name = index["_class_name"]
    own = [k for k, v in index.items() if isinstance(v, list | tuple) and k not in UNUSED and not _shipped(v)]
    if isinstance(name, list) or own:  # a file beside the index, and a class in it
        raise ValueError(remote_code_message(source))
    if name not in families:
        raise ValueError(
            f"{source} is a {name}, which cannot be trained here; supported are {', '.join(families)}"
        )
    return families[name]


def _shipped(entry: Sequence[Any]) -> bool:
    """Whether a component's class comes with diffusers or transformers, or the entry is no component."""
    library = entry[0] if len(entry) == 2 else None
    if not isinstance(library, str) or library.partition(".")[0] in ("diffusers", "transformers"):
        return True
    from diffusers import pipelines

    return hasattr(pipelines, library)


def component_classes(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of each component that a pipeline folder holds."""
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    return {k: tuple(v) for k, v in index.items() if isinstance(v, list) and len(v) == 2 and v[0]}


def load_pipeline(
    source: str,
    *,
    dtype: str = "auto",
    lora: LoraSettings | None = None,
    trainable: bool = True,
) -> LoadedPipeline:
    """Load a pipeline; everything is frozen but its network, or the network's adapters.

    Args:
        source: folder saved by `save_pretrained`, or a hub id.
        dtype: of network and text encoders: "auto" for that of the network's file, or a dtype's name.
        lora: train new adapters instead of the weights; they are float32.
        trainable: False freezes everything (references).

    Raises:
        FileNotFoundError, ValueError: no pipeline, or of a class that cannot be trained here.
        OSError: weights that are not safetensors.

    Example:
        >>> loaded = load_pipeline("stable-diffusion-v1-5/stable-diffusion-v1-5")  # doctest: +SKIP
        >>> conditions = encode_prompts(loaded, ["a red cube"])                    # doctest: +SKIP
    """
    pipe, family, folder, kind = open_pipeline(source, dtype)
    loaded = LoadedPipeline(pipe, family, source, folder, _dtype=kind)
    network: Any = loaded.denoiser
    disable_dropout(network)
    network.requires_grad_(trainable and lora is None)
    if lora is not None and trainable:
        loaded.adapter = add_lora(family, network, lora)
    network.eval()  # dropout is the only thing train mode would switch on, and it is off
    return loaded


def open_pipeline(
    source: str, dtype: str, families: Mapping[str, Family] = FAMILIES
) -> tuple[Any, Family, Path, torch.dtype]:
    """A pipeline as its files hold it, its family, its folder on this machine and its dtype.

    Args:
        source: folder saved by `save_pretrained`, or a hub id.
        dtype: "auto" for that of the network's file, or a dtype's name.
        families: by the class of the pipeline.

    Raises:
        FileNotFoundError, ValueError: no pipeline, or of a class that cannot be trained here.
        OSError: weights that are not safetensors.
    """
    from diffusers import DiffusionPipeline

    family = check_pipeline_source(source, families)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = Path(DiffusionPipeline.download(source, use_safetensors=True))
    kind = resolve_dtype(dtype)
    if not isinstance(kind, torch.dtype):
        kind = stored_dtype(folder / NETWORK[family])
    pipe = from_files(folder, kind, {})
    if getattr(pipe, NETWORK[family]).config.get("time_cond_proj_dim") is not None:
        raise ValueError(
            f"{source} was distilled to take the guidance scale as an input (time_cond_proj_dim); start from the "
            "model that it was distilled from"
        )
    return pipe, family, folder, kind


def stored_dtype(folder: Path) -> torch.dtype:
    """Dtype of the weights in a component's folder, from the header of its safetensors file.

    Raises:
        OSError: there is none.
    """
    from safetensors import safe_open

    files = [
        *folder.glob("diffusion_pytorch_model.safetensors"),
        *sorted(folder.glob("*-00001-of-*.safetensors")),
    ]
    if not files:
        raise OSError(
            f"{folder} has no safetensors weights. Weights in other formats are not read, since they can run code: "
            "convert them by loading the pipeline with diffusers and calling save_pretrained"
        )
    with safe_open(files[0], framework="pt") as file:
        name = file.get_slice(next(iter(file.keys()))).get_dtype()
    dtypes = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    if name not in dtypes:
        raise OSError(f"{files[0]} holds weights of type {name}; needed one of {', '.join(dtypes)}")
    return dtypes[name]


def from_files(folder: Path, dtype: torch.dtype, present: dict[str, Any]) -> Any:
    """The pipeline with `present` as they are and all else read from the files, frozen and in eval mode."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    # a component saved as None must be named when loading, or diffusers calls it missing
    absent: dict[str, Any] = {k: None for k, v in index.items() if isinstance(v, list) and not v[0]}
    absent |= {name: None for name in UNUSED if name in index}
    if "requires_safety_checker" in index:
        absent["requires_safety_checker"] = False
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # torch_dtype is an old name, but the one every version knows
        # one by one: the pipeline's own loading keeps to itself which weights were not there
        models = _models(folder, dtype, leave_out=(absent | present).keys())
        pipe = DiffusionPipeline.from_pretrained(
            folder,
            use_safetensors=True,
            torch_dtype={"vae": torch.float32, "default": dtype},
            **(absent | present | models),
        )
    pipe.set_progress_bar_config(disable=True)
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module) and name not in present:
            part.requires_grad_(False).eval()
    return pipe


def _models(folder: Path, dtype: torch.dtype, leave_out: Collection[str]) -> dict[str, nn.Module]:
    """The networks of a pipeline, whole."""
    found: dict[str, nn.Module] = {}
    for name, (library, kind) in component_classes(folder).items():
        if name in leave_out or library not in ("diffusers", "transformers"):
            continue
        component = getattr(importlib.import_module(library), kind, None)
        if isinstance(component, type) and issubclass(component, nn.Module):
            own = torch.float32 if name == "vae" else dtype
            options: dict[str, Any] = {"dtype" if library == "transformers" else "torch_dtype": own}
            found[name] = load_whole(component, folder / name, **options)
    return found


def free(loaded: LoadedPipeline, *groups: str) -> None:
    """Drop parts ("vae", "text_encoders") from memory, once what they compute is cached; tokenizers stay.

    Functions that need a dropped part read it from the files for one call.
    """
    for group in groups:
        for name in loaded.parts(group):
            setattr(loaded.pipe, name, None)


def restore(loaded: LoadedPipeline, *groups: str) -> None:
    """Read dropped parts from the files again, onto the network's device."""
    missing = [name for group in groups for name in loaded.parts(group) if getattr(loaded.pipe, name) is None]
    if not missing:
        return
    present = {k: v for k, v in loaded.pipe.components.items() if k not in missing and k not in UNUSED}
    fresh = from_files(loaded.folder, loaded._dtype, present)
    for name in missing:
        setattr(loaded.pipe, name, getattr(fresh, name).to(loaded.device))


@contextlib.contextmanager
def borrowed(loaded: LoadedPipeline, *groups: str) -> Iterator[None]:
    """While open, the parts are there; those that had to be read from the files are dropped again.

    Open it around a loop, so that each is read once.
    """
    missing = [group for group in groups if any(getattr(loaded.pipe, n) is None for n in loaded.parts(group))]
    restore(loaded, *missing)
    try:
        yield
    finally:
        free(loaded, *missing)


# -- identity ------------------------------------------------------------------------------------------------


def vae_identity(loaded: LoadedPipeline) -> str:
    """Digest of all that latents depend on besides the image; stays known after `free`."""
    if "vae" not in loaded._identities:
        with borrowed(loaded, "vae"):
            loaded._identities["vae"] = _digest({"vae": loaded.vae}, [loaded.family])
    return loaded._identities["vae"]


def text_identity(loaded: LoadedPipeline) -> str:
    """Digest of all that prompt embeddings depend on besides the text; stays known after `free`."""
    if "text" not in loaded._identities:
        with borrowed(loaded, "text_encoders"):
            rules: list[Any] = [loaded.family, loaded.pipe.config.get("force_zeros_for_empty_prompt")]
            for name, tokenizer in sorted(loaded.pipe.components.items()):
                if name.startswith("tokenizer") and tokenizer is not None:
                    state = json.loads(tokenizer.backend_tokenizer.to_str())
                    # left over from the last call
                    state = {k: v for k, v in state.items() if k not in ("truncation", "padding")}
                    rules.append([name, state, tokenizer.model_max_length, tokenizer.pad_token])
            loaded._identities["text"] = _digest(loaded.text_encoders, rules)
    return loaded._identities["text"]


def _digest(modules: dict[str, Any], rules: list[Any]) -> str:
    """Of models with their configurations, and whatever else counts."""
    known = {name: fingerprint(module) for name, module in modules.items()}
    text = json.dumps([known, rules], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
