"""Released layouts become our folders: the same outputs, and an error that names what is wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_pipelines
from prefopt.motion.converting import (
    convert_mdm,
    convert_t2m_evaluator,
    mdm_denoiser,
    mdm_scheduler,
)
from prefopt.motion.pipeline import MotionPipeline
from prefopt.motion.stats import MotionStats
from released_layouts import FEATURES, FRAMES, WORDS, PlainMDM, random_t2m, write_mdm, write_t2m

CASES = {c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/sopo.json").read_text())}


def inputs(frames: int, features: int = FEATURES):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, frames, features, generator=generator)
    return x, torch.tensor([0, 17, 49]), torch.randn(3, 32, generator=generator)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A folder of a text encoder with its tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    tiny_pipelines.clip(projection=True).save_pretrained(folder)
    tiny_pipelines.clip_tokenizer().save_pretrained(folder)
    return folder


def stats(width: int = FEATURES) -> MotionStats:
    return MotionStats.of("humanml3d", [0.5] * width, [2.0] * width, fps=20)


# -- MDM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [FRAMES, 9])
def test_mdm_gives_the_same_output(frames):
    plain = PlainMDM()
    x, t, text = inputs(frames)
    with torch.no_grad():
        found, wanted = mdm_denoiser(plain.state_dict())(x, t, text), plain(x, t, text)
        assert torch.allclose(found, wanted, atol=1e-5)
        # the first releases see padding
        hidden = mdm_denoiser(plain.state_dict())(x, t, text, torch.tensor([4, 5, 9]))
        assert torch.allclose(hidden, wanted, atol=1e-5)
        for others in ((x, t, 0 * text), (x, t.flip(0), text), (x.flip(1), t, text)):
            assert not torch.allclose(mdm_denoiser(plain.state_dict())(*others), wanted, atol=1e-2)


def test_mdm_that_hides_padding():
    plain = PlainMDM()
    x, t, text = inputs(20)
    length = torch.tensor([20, 4, 9])
    there = torch.arange(20) < length[:, None]
    with torch.no_grad():
        found = mdm_denoiser(plain.state_dict(), mask_padding=True)(x, t, text, length)
        wanted = plain(x, t, text, there)
    assert torch.allclose(found[there], wanted[there], atol=1e-5)


def test_mdm_of_other_sizes():
    plain = PlainMDM(width=8, layers=1, feedforward=6, features=251)
    x, t, text = inputs(12, 251)
    with torch.no_grad():
        assert torch.allclose(mdm_denoiser(plain.state_dict())(x, t, text), plain(x, t, text), atol=1e-5)


def test_a_folder_that_draws_motions(tmp_path, clip):
    checkpoint = write_mdm(tmp_path / "mdm", diffusion_steps=4)
    pipe = MotionPipeline.from_pretrained(
        convert_mdm(checkpoint, tmp_path / "out", text_encoder=clip, stats=stats())
    )
    assert (pipe.codec.name, pipe.max_frames, pipe.config.max_text_tokens, pipe.config.unit_length) == (
        "humanml3d",
        196,
        22,
        4,
    )
    x, t, text = inputs(12)
    with torch.no_grad():
        assert torch.allclose(pipe.denoiser(x, t, text), PlainMDM()(x, t, text), atol=1e-5)
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(["walks"], [60]).features
    assert drawn[0].shape == (60, FEATURES)
    assert bool(drawn[0].isfinite().all())


def test_statistics_are_read_beside_the_data(tmp_path, clip):
    np.save(tmp_path / "Mean.npy", np.full(FEATURES, 3, np.float32))
    np.save(tmp_path / "Std.npy", np.full(FEATURES, 4, np.float32))
    out = convert_mdm(write_mdm(tmp_path / "mdm"), tmp_path / "out", text_encoder=clip, stats=tmp_path)
    found = MotionPipeline.from_pretrained(out).stats
    assert (float(found.mean_D[0]), float(found.std_D[9]), found.codec, found.fps) == (
        3.0,
        4.0,
        "humanml3d",
        20.0,
    )


def test_averaged_weights_are_taken_where_they_are(tmp_path, clip):
    plain = PlainMDM()
    both = {
        "model": {name: 2 * tensor for name, tensor in plain.state_dict().items()},
        "model_avg": plain.state_dict(),
    }
    for weights, factor in ((both, 1), ({"model": both["model"]}, 2)):
        out = convert_mdm(
            write_mdm(tmp_path / "mdm", weights=weights), tmp_path / "out", text_encoder=clip, stats=stats()
        )
        found = MotionPipeline.from_pretrained(out).denoiser.embed_text.weight
        assert torch.allclose(found, factor * plain.embed_text.weight)


def test_the_scheduler_is_mdms():
    wanted = torch.tensor(CASES["cosine_schedule_T50"]["expected"]["alphas_cumprod"])
    found = mdm_scheduler({"diffusion_steps": 50, "noise_schedule": "cosine", "sigma_small": True})
    assert torch.allclose(found.alphas_cumprod, wanted, atol=1e-6)
    assert found.config.prediction_type == "sample"
    assert not found.config.clip_sample
    assert found.config.variance_type == "fixed_small"
    line = mdm_scheduler({"diffusion_steps": 500, "noise_schedule": "linear", "sigma_small": False})
    assert torch.allclose(line.betas, torch.linspace(2e-4, 4e-2, 500), atol=1e-7)  # 1000 / 500 times DDPM's
    assert line.config.variance_type == "fixed_large"
    with pytest.raises(ValueError, match="noise_schedule is 'odd'"):
        mdm_scheduler({"noise_schedule": "odd"})


def changed(drop: str = "", **new: torch.Tensor):
    state = PlainMDM().state_dict()
    state.pop(drop, None)
    return {**state, **{name.replace("__", "."): tensor for name, tensor in new.items()}}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed("seqTransEncoder.layers.1.norm2.bias"), r"missing 1 \(seqTransEncoder.layers.1.norm2.bias\)"),
        (changed(embed_action__action_embedding=torch.zeros(2)), r"unknown 1 \(embed_action.action_embedding\)"),
        (changed("embed_text.bias", seqTransDecoder__x=torch.zeros(2)), "missing 1 .embed_text.bias.; unknown 1 .seqTransDecoder.x"),
        (changed(seqTransEncoder__layers__1__linear1__weight=torch.zeros(5, 16)), r"blocks.1.up.weight \(5, 16\), needed \(24, 16\)"),
        ({}, r"missing 10 \(.*, \.\.\.\)"),
    ],
)  # fmt: skip
def test_other_tensors_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        mdm_denoiser(weights)


@pytest.mark.parametrize(
    ("args", "given", "message"),
    [
        ({"arch": "trans_dec"}, {}, "arch is 'trans_dec'; only checkpoints with arch='trans_enc'"),
        ({"text_encoder_type": "bert"}, {}, "text_encoder_type is 'bert'"),
        ({}, {"stats": stats(251)}, "263 features a frame and the statistics 251"),
    ],
)
def test_other_models_are_refused(tmp_path, clip, args, given, message):
    checkpoint = write_mdm(tmp_path / "mdm", **args)
    with pytest.raises(ValueError, match=message):
        convert_mdm(checkpoint, tmp_path / "out", **{"text_encoder": clip, "stats": stats(), **given})
    assert not (tmp_path / "out").exists()


def test_another_text_encoder_is_refused(tmp_path, clip):
    checkpoint = write_mdm(tmp_path / "mdm", PlainMDM(text=48))
    with pytest.raises(ValueError, match=r"texts of width 48, and .* gives 32"):
        convert_mdm(checkpoint, tmp_path / "out", text_encoder=clip, stats=stats())


def test_missing_and_broken_files(tmp_path, clip):
    checkpoint = write_mdm(tmp_path / "mdm")
    (tmp_path / "mdm/args.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        convert_mdm(checkpoint, tmp_path / "out", text_encoder=clip, stats=stats())
    (tmp_path / "mdm/args.json").unlink()
    with pytest.raises(FileNotFoundError, match="says how the checkpoint beside it was trained"):
        convert_mdm(checkpoint, tmp_path / "out", text_encoder=clip, stats=stats())


# -- nothing runs --------------------------------------------------------------------------------------------


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_no_code_of_a_file_runs(tmp_path, clip):
    bait = tmp_path / "bait"
    checkpoint = write_mdm(tmp_path / "mdm", weights={"x": Payload(bait)})
    with pytest.raises(ValueError, match="holds other things than tensors"):
        convert_mdm(checkpoint, tmp_path / "out", text_encoder=clip, stats=stats())
    files = write_t2m(tmp_path / "t2m")
    for name in ("words", "idx"):
        good = (tmp_path / f"t2m/our_vab_{name}.pkl").read_bytes()
        (tmp_path / f"t2m/our_vab_{name}.pkl").write_bytes(pickle.dumps([Payload(bait)]))
        with pytest.raises(ValueError, match=rf"our_vab_{name}.pkl holds more than words and numbers.*mkdir"):
            convert_t2m_evaluator(**files, out=tmp_path / "out")
        (tmp_path / f"t2m/our_vab_{name}.pkl").write_bytes(good)
    np.save(tmp_path / "t2m/our_vab_data.npy", np.array([Payload(bait)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"our_vab_data\.npy holds Python objects"):
        convert_t2m_evaluator(**files, out=tmp_path / "out")
    assert not bait.exists()
    assert not (tmp_path / "out").exists()


# -- T2M evaluator (its outputs: test_t2m_evaluator.py) ------------------------------------------------------


def without(part: str, name: str):
    weights = random_t2m()
    del weights[part][name]
    return weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"encoder": {}}, "has no text_encoder, movement_encoder, motion_encoder, but encoder, opt_text_encoder"),
        (without("motion_encoder", "gru.bias_hh_l0_reverse"), r"missing 1 \(motion_encoder.gru.bias_hh_l0_reverse\)"),
        (without("movement_encoder", "main.0.weight"), "no tensor 'movement_encoder.main.0.weight'"),
        ({**random_t2m(), "motion_encoder": {**random_t2m()["motion_encoder"], "x": torch.zeros(1)}}, r"unknown 1 \(motion_encoder.x\)"),
        ({**random_t2m(), "text_encoder": {**random_t2m()["text_encoder"], "hidden": torch.zeros(3)}}, r"text_encoder.hidden \(3,\), needed \(2, 1, 12\)"),
    ],
)  # fmt: skip
def test_another_evaluator_is_refused(tmp_path, weights, message):
    with pytest.raises(ValueError, match=message):
        convert_t2m_evaluator(**write_t2m(tmp_path / "t2m", weights), out=tmp_path / "out")


def test_statistics_of_another_data_set_are_refused(tmp_path):
    files = write_t2m(tmp_path / "t2m")
    for name in ("mean", "std"):
        np.save(files[name], np.ones(251, np.float32))
    with pytest.raises(ValueError, match=r"263 features a frame and .* has 251"):
        convert_t2m_evaluator(**files, out=tmp_path / "out")
    np.save(files["mean"], np.ones(36, np.float32))
    with pytest.raises(ValueError, match=r"mean\.npy is for 36 features a frame; needed 263"):
        convert_t2m_evaluator(**files, out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"nowhere\.npy is not there"):
        convert_t2m_evaluator(**{**files, "mean": tmp_path / "nowhere.npy"}, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("words", {"a": 1}, "needed a list of words"),
        ("words", [*WORDS, "new"], r"1 of 13 words have no vector, among them \['new'\]"),
        ("idx", {word: n + 1 for n, word in enumerate(WORDS)}, r"1 of 12 words have no vector"),
        ("words", ["a"], "without 'unk'"),
    ],
)
def test_word_files_that_do_not_fit_are_refused(tmp_path, name, value, message):
    files = write_t2m(tmp_path / "t2m")
    (tmp_path / f"t2m/our_vab_{name}.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=message):
        convert_t2m_evaluator(**files, out=tmp_path / "out")
