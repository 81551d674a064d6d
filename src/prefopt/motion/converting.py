"""Released weights of others as folders of ours: MDM's checkpoints and the T2M evaluator.

Both are published as pickles. Tensors are read with `weights_only`, word lists by a reader that makes lists, dictionaries,
strings and numbers and nothing else: no code of a file runs.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.motion.arrays import read_npy
from prefopt.motion.codec import Codec, find_codec
from prefopt.motion.denoiser import MotionDenoiser
from prefopt.motion.folders import read_stats
from prefopt.motion.pipeline import MotionPipeline
from prefopt.motion.stats import MotionStats
from prefopt.motion.t2m_evaluator import CONTACTS, T2MEvaluator
from prefopt.motion.texts import text_width

CODECS = {263: "humanml3d", 251: "kit"}
"""Codec of data with so many features."""
MDM_HEADS, MDM_FRAMES, MDM_TEXT_TOKENS = 4, 196, 22
"""What MDM's code says and its checkpoints do not."""


def convert_mdm(
    checkpoint: str | Path,
    out: str | Path,
    *,
    text_encoder: str | Path,
    stats: MotionStats | str | Path,
) -> Path:
    """A folder of `MotionPipeline` from a checkpoint of MDM (arXiv 2209.14916), of its encoder architecture.

    Args:
        checkpoint: `model000750000.pt`, beside which `args.json` must stand; the average of the weights is taken where there is one.
        out: the folder to write.
        text_encoder: folder or hub id of CLIP ViT-B/32 (openai/clip-vit-base-patch32), which MDM's code gets from OpenAI.
        stats: those of the data set, or the folder that holds its `Mean.npy` and `Std.npy`.

    Returns:
        `out`.

    Raises:
        ValueError: another architecture; tensors that are missing or unknown; statistics or text encoder of another model.
        OSError: a file that is not there (arrays: a ValueError).
    """
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    checkpoint = Path(checkpoint).expanduser()
    args = mdm_arguments(checkpoint.parent / "args.json")
    weights = _read_weights(checkpoint)
    weights = weights.get("model_avg") or weights.get("model") or weights
    denoiser = mdm_denoiser(weights, mask_padding=bool(args.get("mask_frames", False)))
    features = int(denoiser.config.features)
    if not isinstance(stats, MotionStats):
        stats = read_stats(Path(stats).expanduser(), _codec(features, checkpoint))
    if len(stats.mean_D) != features:
        raise ValueError(
            f"{checkpoint} has {features} features a frame and the statistics {len(stats.mean_D)}: give those of its data set"
        )
    encoder = CLIPTextModelWithProjection.from_pretrained(str(text_encoder), dtype=torch.float32).eval()
    if text_width(encoder) != denoiser.config.text_width:
        raise ValueError(
            f"{checkpoint} reads texts of width {denoiser.config.text_width}, and {text_encoder} gives {text_width(encoder)}: needed the "
            "text encoder that it was trained with, CLIP ViT-B/32 for the released ones"
        )
    tokenizer = AutoTokenizer.from_pretrained(str(text_encoder))
    pipeline = MotionPipeline(
        denoiser, mdm_scheduler(args), stats, encoder, tokenizer, max_text_tokens=MDM_TEXT_TOKENS
    )
    pipeline.save_pretrained(str(out))
    return Path(out)


def mdm_arguments(file: Path) -> dict[str, Any]:
    """Settings of an MDM checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no JSON, or of an architecture that is not read here.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there: it says how the checkpoint beside it was trained, and comes with it"
        )
    try:
        args: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    for key, wanted in {"arch": "trans_enc", "text_encoder_type": "clip", "unconstrained": False}.items():
        if args.get(key, wanted) != wanted:
            raise ValueError(
                f"{file}: {key} is {args[key]!r}; only checkpoints with {key}={wanted!r} can be converted"
            )
    return args


def mdm_denoiser(weights: Mapping[str, Tensor], *, mask_padding: bool = False) -> MotionDenoiser:
    """Our denoiser with the weights of an MDM checkpoint, whatever its sizes; its frozen text encoder and tables are left out.

    Args:
        weights: released names and tensors.
        mask_padding: whether it was trained with padding hidden (`mask_frames`); the first releases were not.

    Raises:
        ValueError: tensors that are missing or unknown, or of a shape that does not fit.
    """
    dropped = ("clip_model.", "sequence_pos_encoder.", "embed_timestep.sequence_pos_encoder.", "rot2xyz.")
    taken = {name: tensor for name, tensor in weights.items() if not name.startswith(dropped)}
    layers = {name.split(".")[2] for name in taken if name.startswith("seqTransEncoder.layers.")}
    names = _mdm_names(len(layers))
    _check_names("an MDM checkpoint of its encoder architecture", taken, names)
    width, features = taken["input_process.poseEmbedding.weight"].shape
    denoiser = MotionDenoiser(
        features=features,
        max_frames=MDM_FRAMES,
        width=width,
        layers=len(layers),
        heads=MDM_HEADS,
        feedforward=len(taken["seqTransEncoder.layers.0.linear1.weight"]) if layers else 1,
        text_width=taken["embed_text.weight"].shape[1],
        mask_padding=mask_padding,
    )
    state: dict[str, Tensor] = {}
    for name, ours in names.items():
        pieces = taken[name].float().chunk(len(ours))  # queries, keys and values are one matrix there
        state |= dict(zip(ours, pieces, strict=True))
    _load(denoiser, state, "the MDM checkpoint")
    return denoiser.eval()


def _mdm_names(layers: int) -> dict[str, list[str]]:
    """Our names of each released tensor; several where it is cut into so many."""
    parts = {
        "input_process.poseEmbedding": ["embed_frame"],
        "embed_text": ["embed_text"],
        "embed_timestep.time_embed.0": ["embed_time.0"],
        "embed_timestep.time_embed.2": ["embed_time.2"],
        "output_process.poseFinal": ["to_features"],
    }
    for n in range(layers):
        there, here = f"seqTransEncoder.layers.{n}.", f"blocks.{n}."
        parts[there + "self_attn.out_proj"] = [here + "to_out"]
        parts[there + "linear1"], parts[there + "linear2"] = [here + "up"], [here + "down"]
        parts[there + "norm1"], parts[there + "norm2"] = (
            [here + "norm_attention"],
            [here + "norm_feedforward"],
        )
    names = {
        f"{there}.{kind}": [f"{one}.{kind}" for one in here]
        for there, here in parts.items()
        for kind in ("weight", "bias")
    }
    for n in range(layers):
        for kind in ("weight", "bias"):
            names[f"seqTransEncoder.layers.{n}.self_attn.in_proj_{kind}"] = [
                f"blocks.{n}.to_{x}.{kind}" for x in "qkv"
            ]
    return names


def mdm_scheduler(args: Mapping[str, Any]) -> Any:
    """The process that a checkpoint was trained for, by its arguments: x_0 is predicted, samples are not clipped.

    Raises:
        ValueError: an unknown schedule.
    """
    from diffusers import DDPMScheduler

    steps, schedule = int(args.get("diffusion_steps", 1000)), args.get("noise_schedule", "cosine")
    if schedule == "cosine":
        betas: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2"}
    elif schedule == "linear":
        betas = {"beta_schedule": "linear", "beta_start": 0.1 / steps, "beta_end": 20 / steps}
    else:
        raise ValueError(f"noise_schedule is {schedule!r}; needed 'cosine' or 'linear'")
    return DDPMScheduler(
        num_train_timesteps=steps,
        prediction_type="sample",
        variance_type="fixed_small" if args.get("sigma_small", True) else "fixed_large",
        clip_sample=False,
        **betas,
    )


# -- the T2M evaluator ---------------------------------------------------------------------------------------


def convert_t2m_evaluator(
    checkpoint: str | Path, glove: str | Path, out: str | Path, *, mean: str | Path, std: str | Path
) -> Path:
    """A folder of `T2MEvaluator` from the released weights and word vectors.

    Args:
        checkpoint: `text_mot_match/model/finest.tar`.
        glove: folder with `our_vab_data.npy`, `our_vab_words.pkl` and `our_vab_idx.pkl`.
        out: the folder to write.
        mean, std: the evaluator's own (`Comp_v6_KLD01/meta/mean.npy` and `std.npy`; `t2m_mean.npy` and `t2m_std.npy` in MDM), not
            the data set's `Mean.npy` and `Std.npy`.

    Returns:
        `out`.

    Raises:
        ValueError: tensors that are missing or unknown, statistics of another width, word files that do not fit each other.
        OSError: a file that is not there (arrays: a ValueError).
    """
    weights = _read_weights(Path(checkpoint).expanduser())
    parts = ("text_encoder", "movement_encoder", "motion_encoder")
    missing = [part for part in parts if not isinstance(weights.get(part), Mapping)]
    if missing:
        raise ValueError(
            f"{checkpoint} has no {', '.join(missing)}, but {', '.join(map(str, weights))}: needed the `finest.tar` of text_mot_match"
        )
    state = {f"{part}.{name}": tensor.float() for part in parts for name, tensor in weights[part].items()}
    stats = _evaluator_stats(Path(mean).expanduser(), Path(std).expanduser())
    words, vectors_VW = read_word_vectors(Path(glove).expanduser())
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        judge = T2MEvaluator(
            vocabulary=words,
            codec=stats.codec,
            features=len(stats.mean_D),
            fps=stats.fps,
            word_width=vectors_VW.shape[1],
            text_hidden=shapes["text_encoder.input_emb.weight"][0],
            movement_hidden=shapes["movement_encoder.main.0.weight"][0],
            movement_width=shapes["movement_encoder.out_net.weight"][0],
            motion_hidden=shapes["motion_encoder.input_emb.weight"][0],
            embedding=shapes["motion_encoder.output_net.3.weight"][0],
        )
    except KeyError as error:
        raise ValueError(f"{checkpoint} has no tensor {error}: it is not the T2M evaluator") from None
    seen = (
        shapes["movement_encoder.main.0.weight"][1] + CONTACTS
        if "movement_encoder.main.0.weight" in shapes
        else 0
    )
    if seen != len(stats.mean_D):
        raise ValueError(
            f"{checkpoint} is for {seen} features a frame and {mean} has {len(stats.mean_D)}: they belong to different data sets"
        )
    own = {name: tensor for name, tensor in judge.state_dict().items() if not name.startswith(parts)}
    _check_names("the T2M evaluator", state, [name for name in judge.state_dict() if name not in own])
    own |= {"stats.mean_D": stats.mean_D, "stats.std_D": stats.std_D, "word_vectors": vectors_VW}
    _load(judge, state | own, str(checkpoint))
    judge.save_pretrained(str(out))
    return Path(out)


def read_word_vectors(folder: Path) -> tuple[list[str], Tensor]:
    """The evaluator's words and (V, W) vectors.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: files that hold other things, or do not fit each other.
    """
    vectors_VW = torch.from_numpy(read_npy(folder / "our_vab_data.npy")).float()
    words, places = (_read_plain(folder / f"our_vab_{name}.pkl") for name in ("words", "idx"))
    if not isinstance(words, list) or not isinstance(places, dict) or vectors_VW.ndim != 2:
        raise ValueError(
            f"{folder}: needed a list of words, a dictionary of their places and an array of vectors"
        )
    wrong = [
        word for word in words if not isinstance(word, str) or not 0 <= places.get(word, -1) < len(vectors_VW)
    ]
    if wrong or not words:
        raise ValueError(
            f"{folder}: {len(wrong)} of {len(words)} words have no vector, among them {wrong[:3]}"
        )
    unique = list(dict.fromkeys(words))
    return unique, vectors_VW[[places[word] for word in unique]]


# -- files of others -----------------------------------------------------------------------------------------


def _codec(features: int, source: str | Path) -> Codec:
    if features not in CODECS:
        raise ValueError(
            f"{source} is for {features} features a frame; needed 263 (HumanML3D) or 251 (KIT-ML)"
        )
    return find_codec(CODECS[features])


def _evaluator_stats(mean: Path, std: Path) -> MotionStats:
    mean_D, std_D = (torch.from_numpy(read_npy(file)).flatten() for file in (mean, std))
    codec = _codec(len(mean_D), mean)
    return MotionStats.of(codec.name, mean_D, std_D, fps=codec.fps, name="T2M evaluator")


def _read_weights(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} holds other things than tensors, or is broken, and is not read: {str(error).splitlines()[0]}"
        ) from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{file} holds a {type(found).__name__}; needed named tensors")
    return dict(found)


class _PlainReader(pickle.Unpickler):
    """Makes lists, dictionaries, strings and numbers; whatever would need a class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants {module}.{name}")


def _read_plain(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    try:
        with file.open("rb") as stream:
            return _PlainReader(stream).load()
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{file} holds more than words and numbers, or is broken, and is not read: {error}"
        ) from None


def _check_names(what: str, found: Mapping[str, Tensor], wanted: Any) -> None:
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unknown:
        parts = [f"{kind} {len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
                 for kind, names in (("missing", missing), ("unknown", unknown)) if names]  # fmt: skip
        raise ValueError(f"the tensors are not those of {what}: {'; '.join(parts)}")


def _load(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wrong = [
        f"{name} {tuple(state[name].shape)}, needed {shape}"
        for name, shape in shapes.items()
        if tuple(state[name].shape) != shape
    ]
    if wrong:
        raise ValueError(f"tensors of {what} have shapes that do not fit each other: {'; '.join(wrong[:4])}")
    module.load_state_dict(dict(state), strict=True)
