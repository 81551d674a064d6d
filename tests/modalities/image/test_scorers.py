"""Scorers through the real loading paths, on tiny random models, against transformers' own numbers."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny_pipelines
from prefopt.modalities.image import scorers
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.modalities.image.models.pipelines import load_pipeline
from prefopt.modalities.image.preprocessing import ImagePreprocessing
from prefopt.modalities.image.scorers import get_scorer

PROMPTS = ["a red circle", "b", "a very small yellow cross, top left"]


def images(n: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """Bytes over 255: smooth, with noise."""
    generator = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


def pil(images_BCHW: Tensor) -> list[Any]:
    from PIL import Image

    return [
        Image.fromarray((i.permute(1, 2, 0) * 255).round().byte().numpy().astype(np.uint8))
        for i in images_BCHW
    ]


def processor(**values: Any) -> Any:
    """transformers' processor without torchvision."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        **{"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, **values}
    )


def tiny_clip(folder: Path) -> Path:
    """A CLIP model of two layers, its tokenizer and its preprocessing."""
    import transformers

    text = tiny_pipelines.clip().config.to_dict()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config=text,
                vision_config={
                    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "image_size": 24, "patch_size": 8, "projection_dim": 20,
                },
                projection_dim=20,
                logit_scale_init_value=3.1,
            )
        )  # fmt: skip
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(3 if p.ndim > 1 else 1)  # freshly made, all images look alike to it
    model.save_pretrained(folder)
    tiny_pipelines.clip_tokenizer().save_pretrained(folder)
    processor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A latent judge's folder, and the pipeline's that it started from."""
    place = tmp_path_factory.mktemp("judge")
    pipeline = tiny_pipelines.tiny_sd(place / "sd")
    made = LatentRewardModel.from_pipeline(pipeline)
    made.config = replace(made.config, timestep_range=(1, 951))
    made.save_pretrained(place / "judge")
    return place / "judge", pipeline


# -- preprocessing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"resample": 2},
        {"size": {"shortest_edge": 40}},
        {"size": {"height": 30, "width": 26}},
        {"do_center_crop": False},
        {"do_resize": False},
        {"do_normalize": False},
        {"crop_size": {"height": 17, "width": 20}},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3]},
    ],
)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (51, 37), (37, 95), (30, 24)])
def test_preprocessing_is_that_of_transformers(values: dict[str, Any], height: int, width: int) -> None:
    theirs = processor(**values)
    given = images(2, height, width)
    expected = torch.from_numpy(np.stack(theirs(pil(given)).pixel_values))
    got = ImagePreprocessing.from_dict(theirs.to_dict())(given)
    assert got.shape == expected.shape
    std = torch.tensor(theirs.image_std if theirs.do_normalize else [1.0] * 3)[:, None, None]
    gap = ((got - expected) * std * 255).abs()
    assert gap.max() < 1.01  # a byte, where a sum lies about halfway between two
    assert gap.mean() < 0.02


def test_sizes_of_old_configurations() -> None:
    same = ImagePreprocessing.from_dict(processor().to_dict())
    assert ImagePreprocessing.from_dict({"size": 24, "crop_size": 24, "resample": 3}) == same
    assert ImagePreprocessing.from_dict({}) == ImagePreprocessing(224, (224, 224))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resample": 0}, "resample 0"),
        ({"do_rescale": False}, "do_rescale False"),
        ({"rescale_factor": 1.0}, "rescale_factor 1"),
        ({"size": {"longest_edge": 9}}, "size {'longest_edge': 9}"),
    ],
)
def test_unknown_preprocessing_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ImagePreprocessing.from_dict(values)


def test_crop_larger_than_image_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller than the crop 24 x 24"):
        ImagePreprocessing(None, (24, 24))(images(1, 10, 40))


def test_preprocessing_is_found_in_either_file(clip: Path, tmp_path: Path) -> None:
    from transformers import CLIPProcessor

    theirs = processor(size={"shortest_edge": 40})
    CLIPProcessor(theirs, tiny_pipelines.clip_tokenizer()).save_pretrained(tmp_path / "whole")
    assert not (tmp_path / "whole" / "preprocessor_config.json").exists()
    assert ImagePreprocessing.of(str(tmp_path / "whole")).size == 40
    assert ImagePreprocessing.of(str(clip)).mean == (0.4, 0.5, 0.6)
    with pytest.warns(UserWarning, match=r"no preprocessor_config\.json: images are resized to 99"):
        assert ImagePreprocessing.of(str(tmp_path), 99) == ImagePreprocessing(99, (99, 99))


# -- CLIP ----------------------------------------------------------------------------------------------------


def theirs_cosine(clip: Path, images_BCHW: Tensor) -> tuple[Tensor, float]:
    """Cosines and temperature from transformers' own forward pass and preprocessing."""
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(clip)
    tokens = AutoTokenizer.from_pretrained(clip)(PROMPTS, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(pil(images_BCHW)).pixel_values
    with torch.no_grad():
        out = model(tokens.input_ids, torch.from_numpy(np.stack(pixels)), tokens.attention_mask)
    scale = model.logit_scale.exp().item()
    return out.logits_per_image.diagonal() / scale, scale


@pytest.mark.parametrize("kind", ["clip", "hps", "pickscore"])
def test_clip_scores_are_those_of_transformers(clip: Path, kind: str) -> None:
    given = images(3, 60, 40)
    cosine, scale = theirs_cosine(clip, given)
    scorer = get_scorer(f"{kind}:{clip}")
    got = scorer.score(PROMPTS, given)
    torch.testing.assert_close(got, cosine * (scale if kind == "pickscore" else 1), rtol=1e-4, atol=1e-5)
    assert scorer.name == f"{kind}:{clip}"
    assert cosine.std() > 0.01, "the check must tell images apart"


def test_an_image_scores_as_the_file_it_is_saved_to(clip: Path) -> None:
    given = (images(3) + 0.4 / 255).clamp(0, 1)
    saved = (given * 255).round() / 255
    scorer = get_scorer(f"clip:{clip}")
    assert torch.equal(scorer.score(PROMPTS, given), scorer.score(PROMPTS, saved))


def test_features_may_be_a_tensor_or_an_object(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CLIPModel

    given = images()
    expected = get_scorer(f"pickscore:{clip}").score(PROMPTS, given)
    for name in ("get_image_features", "get_text_features"):
        wrapped = getattr(CLIPModel, name)
        monkeypatch.setattr(CLIPModel, name, lambda *a, _f=wrapped, **k: _f(*a, **k).pooler_output)
    assert torch.equal(get_scorer(f"pickscore:{clip}").score(PROMPTS, given), expected)


def test_batches_and_long_prompts(clip: Path) -> None:
    prompts, given = [*PROMPTS, "long " * 60, "e"], images(5)
    whole = scorers.clip_scorer(clip).score(prompts, given)
    parts = scorers.clip_scorer(clip, batch_size=2).score(prompts, given)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)
    assert scorers.clip_scorer(clip).score([], images(0)).shape == (0,)


def test_nothing_is_loaded_before_it_is_needed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # an import fails
    scorer = get_scorer(f"clip:{clip}")
    with pytest.raises(ImportError):
        scorer.score(PROMPTS, images())


def test_a_text_model_is_no_scorer(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="needed a CLIP model with both towers"):
        get_scorer(f"clip:{tiny_model}").score(PROMPTS, images())


# -- aesthetics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["layers.", "", "predictor.mlp."])
def test_aesthetic_head(clip: Path, tmp_path: Path, prefix: str) -> None:
    from safetensors.torch import save_file
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    widths = [20, 11, 7, 5, 1]
    mlp = nn.Sequential()
    for a, b in pairwise(widths):
        mlp.extend([nn.Linear(a, b), nn.Dropout(0.2)])
    for _ in range(4):  # numbers above 9: their order is not that of letters
        mlp.insert(0, nn.Identity())
    save_file({f"{prefix}{k}": v for k, v in mlp.state_dict().items()}, tmp_path / "head.safetensors")
    given = images(3, 24, 24)
    pixels = torch.from_numpy(np.stack(CLIPImageProcessorPil.from_pretrained(clip)(pil(given)).pixel_values))
    with torch.no_grad():
        embedding = CLIPModel.from_pretrained(clip).get_image_features(pixels).pooler_output
        expected = mlp.eval()(embedding / embedding.norm(dim=-1, keepdim=True))[:, 0]
    got = get_scorer(f"aesthetic:{clip}:{tmp_path / 'head.safetensors'}").score(PROMPTS, given)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_aesthetic_of_a_vision_tower_alone(clip: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import CLIPVisionModelWithProjection

    CLIPVisionModelWithProjection.from_pretrained(clip).save_pretrained(tmp_path / "vision")
    processor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(tmp_path / "vision")
    head = tmp_path / "head.safetensors"
    save_file({"weight": torch.randn(1, 20), "bias": torch.ones(1)}, head)
    whole, alone = (
        get_scorer(f"aesthetic:{c}:{head}").score(PROMPTS, images()) for c in (clip, tmp_path / "vision")
    )
    torch.testing.assert_close(whole, alone)


def test_heads_that_cannot_be_used(clip: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="not a safetensors file"):
        get_scorer(f"aesthetic:{clip}:{tmp_path / 'sac+logos.pth'}")
    with pytest.raises(FileNotFoundError, match="no head at"):
        get_scorer(f"aesthetic:{clip}:{tmp_path / 'head.safetensors'}")
    save_file({"0.weight": torch.ones(5, 20), "1.weight": torch.ones(1, 6)}, tmp_path / "gap.safetensors")
    with pytest.raises(ValueError, match=r"\[\(5, 20\), \(1, 6\)\]"):
        get_scorer(f"aesthetic:{clip}:{tmp_path / 'gap.safetensors'}").score(PROMPTS, images())
    save_file({"weight": torch.ones(1, 768)}, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"reads embeddings of width 768, and .* makes 20"):
        get_scorer(f"aesthetic:{clip}:{tmp_path / 'wide.safetensors'}").score(PROMPTS, images())


# -- latent judges -------------------------------------------------------------------------------------------


def test_latent_judge_scores_the_clean_latent_at_its_smallest_timestep(judge: tuple[Path, Path]) -> None:
    folder, pipeline = judge
    given = images()
    model, vae = LatentRewardModel.from_pretrained(folder), load_pipeline(str(pipeline)).vae
    with torch.no_grad():
        x_0 = vae.encode(given * 2 - 1).latent_dist.mean * vae.config.scaling_factor
        expected = model(x_0, 1, PROMPTS)
    ways = [
        get_scorer(f"lrm:{folder}"),  # the judge knows its base model
        get_scorer(f"lrm:{folder}:{pipeline}"),
        get_scorer(f"lrm:{folder}:{pipeline / 'vae'}"),
        scorers.latent_reward_scorer(folder, vae),
        scorers.latent_reward_scorer(folder, load_pipeline(str(pipeline)).pipe),
    ]
    for scorer in ways:
        torch.testing.assert_close(scorer.score(PROMPTS, given), expected, rtol=1e-5, atol=1e-5)


def test_latent_judge_without_its_vae(judge: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = judge
    with pytest.raises(FileNotFoundError, match="holds no latent reward model"):
        get_scorer(f"lrm:{tmp_path}")
    with pytest.raises(ValueError, match=r"no VAE at .*lrm:DIR:VAE"):
        get_scorer(f"lrm:{folder}:{tmp_path}").score(PROMPTS, images())
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tiny_pipelines.vae(scaling_factor=0.18215).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="different latent space"):
        get_scorer(f"lrm:{folder}:{tmp_path / 'other'}").score(PROMPTS, images())
    with pytest.raises(ValueError, match=r"images are 30 x 32; .* divisible by 4"):
        get_scorer(f"lrm:{folder}").score(PROMPTS, images(3, 30, 32))
    model = LatentRewardModel.from_pretrained(folder)
    model.config = replace(model.config, base_model=None)
    model.save_pretrained(tmp_path / "nameless")
    with pytest.raises(ValueError, match="does not say which VAE"):
        get_scorer(f"lrm:{tmp_path / 'nameless'}").score(PROMPTS, images())


# -- worlds, functions, specifications -----------------------------------------------------------------------


class StubWorld:
    def rewards(self, prompts: list[str], images_BCHW: Tensor) -> dict[str, Tensor]:
        mean = images_BCHW.mean((1, 2, 3))
        return {"utility": 4 * mean, "match": mean, "full": mean.round(), "aesthetic": 1 - mean}


def test_world_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    given = images()
    mean = given.mean((1, 2, 3))
    torch.testing.assert_close(scorers.world_scorer(StubWorld()).score(PROMPTS, given), 4 * mean)
    import prefopt.worlds

    monkeypatch.setattr(prefopt.worlds, "get_world", lambda name: {"picture": StubWorld()}[name])
    for reward, expected in (("", 4 * mean), (":match", mean), (":aesthetic", 1 - mean)):
        scorer = get_scorer(f"world:picture{reward}")
        torch.testing.assert_close(scorer.score(PROMPTS, given), expected)
        assert scorer.name == f"world:picture{reward or ':utility'}"
    with pytest.raises(ValueError, match="no reward 'beauty'; it has utility, match, full, aesthetic"):
        get_scorer("world:picture:beauty").score(PROMPTS, given)


def test_the_real_picture_world() -> None:
    from prefopt.worlds import get_world

    world = get_world("picture")
    drawn = world.pictures(4)
    for reward in ("utility", "match", "full", "aesthetic"):
        got = get_scorer(f"world:picture:{reward}").score(drawn.captions, drawn.images_BCHW)
        torch.testing.assert_close(got, world.rewards(drawn.captions, drawn.images_BCHW)[reward].float())
    with pytest.raises(ValueError, match="no rewards of images"):
        get_scorer("world:text")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, i: i.mean((1, 2, 3)) / 0, "finite: False"),
        (lambda p, i: i.mean((2, 3)), r"shape \(3, 3\)"),
        (lambda p, i: torch.zeros(2), r"shape \(2,\)"),
    ],
)
def test_scores_must_be_one_finite_number_an_image(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scorers.callable_scorer(function, "mine").score(PROMPTS, images())


def test_images_must_be_images() -> None:
    scorer = scorers.callable_scorer(lambda p, i: i.mean((1, 2, 3)), "mine")
    for bad, message in (
        (images() * 2 - 1, r"\(x \+ 1\) / 2"),
        (images() * 255, r"needed \[0, 1\]"),
        (images() * float("nan"), r"needed \[0, 1\]"),
        (images()[:, :1], r"needed \(B, 3, H, W\)"),
        ((images() * 255).byte(), "uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            scorer.score(PROMPTS, bad)
    with pytest.raises(ValueError, match="2 prompts for 3 images"):
        scorer.score(PROMPTS[:2], images())
    with pytest.raises(ValueError, match="1 prompts for 3 images"):
        scorer.score("abc", images())


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("imagereward:x", "no scorer is called 'imagereward'; there are: world:NAME"),
        ("pickscore", "DIR is missing; write pickscore:DIR"),
        ("clip:", "DIR is missing"),
        ("aesthetic:some/clip", "HEAD is missing; write aesthetic:DIR:HEAD"),
        ("aesthetic", "DIR and HEAD is missing"),
        ("lrm", "DIR is missing; write lrm:DIR or lrm:DIR:VAE"),
        ("world", "NAME is missing"),
        ("world:picture:", "empty or a superfluous part"),
        ("clip:a:b", "empty or a superfluous part"),
        ("world:pictures", "no world is called 'pictures'"),
    ],
)
def test_specifications_that_lack_something(specification: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        get_scorer(specification)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    for kind in ("clip", "pickscore", "hps"):
        with pytest.raises(FileNotFoundError, match="no model folder"):
            get_scorer(f"{kind}:{tmp_path / 'gone'}")
        with pytest.raises(FileNotFoundError, match="holds no model"):
            get_scorer(f"{kind}:{tmp_path}")
