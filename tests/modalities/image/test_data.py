"""Runs on images with bad images, ties, caches filled before, and keys that do not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import prefopt
from modalities.image.image_runs import (
    LORA,
    QUIET,
    column,
    lines,
    note,
    pair,
    picture,
    png,
    record,
    rotten,
    train,
    weights,
)
from prefopt.config import ConfigError

# ---- bad images


def bad_rows() -> list[dict[str, Any]]:
    odd = {
        "alpha": png(picture(50).convert("RGBA")),
        "grey": png(picture(51).convert("L")),
        "palette": png(picture(52).quantize(16)),
        "deep": png(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40)),
        "ink": png(picture(53).convert("CMYK"), format="JPEG"),
    }
    good = png(picture(54))
    return [
        pair(0, id="rotten", chosen_image=rotten(png(picture(60)))),  # first: its pair is not the one to show
        pair(1, id="good"),
        pair(2, id="rotten too", rejected_image=rotten(png(picture(61)))),
        pair(3, id="cut", chosen_image=png(picture(62))[:-100]),
        pair(4, id="empty caption", prompt=" "),
        pair(5, id="no image", chosen_image=b"not an image"),
        pair(6, id="same", chosen_image=good, rejected_image=good),
        *(pair(7, id=name, chosen_image=data, rejected_image=good) for name, data in odd.items()),
        pair(8, id="rotten again", rejected_image=rotten(png(picture(61)))),
    ]


@pytest.mark.parametrize("method", ["diffusion_dpo", "diffusion_kto"])
def test_bad_images_are_counted_and_listed(method, sd, images_file, own_cache, tmp_path, capsys):
    data = images_file(bad_rows())
    for folder in ("first", "again"):  # the second knows from the cache what cannot be decoded
        run = tmp_path / folder
        result = train(method, sd, data, run)
        assert len(column(result, "loss")) == 3
        dropped = [json.loads(line) for line in (run / "dropped.jsonl").read_text().splitlines()]
        whole = {d["row"]: d["reason"] for d in dropped if not d["id"].endswith(("good", "/w", "/l"))}
        assert whole[5] == "empty_prompt"
        assert whole[7] == "identical_sides"
        reasons = {row: {d["reason"] for d in dropped if d["row"] == row} for row in (1, 3, 4, 6, 13)}
        assert reasons == {row: {"broken_image"} for row in (1, 3, 4, 6, 13)}
        assert all("damaged" in d["detail"] for d in dropped if d["row"] in (1, 3, 13))
        assert {d["row"] for d in dropped} == {1, 3, 4, 5, 6, 7, 13}
        report = record(run, "data")
        assert report["dropped"] == {
            "broken_image": len(dropped) - 2,
            "empty_prompt": 1,
            "identical_sides": 1,
        }
        # of a pair with one bad side, the other may still teach where samples are single
        singles = 2 * 6 + 3
        assert report["examples"] == (singles if method == "diffusion_kto" else 6)
        assert sum(report["comparisons"].values()) == report["examples"]
        shown = record(run, "first_pair")
        assert all((run / side["image"]).exists() for side in shown["sides"])
        assert "broken_image" in capsys.readouterr().err.split("dropped when decoded")[1].splitlines()[0]
    assert note(tmp_path / "again", "latent cache").startswith("0 images and 0 prompts")


def test_nothing_but_broken_images(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n, chosen_image=rotten(png(picture(60 + n)))) for n in range(2)])
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"none of the images of .*rows.jsonl could be decoded; see dropped"
        ):
            train("diffusion_dpo", sd, data, tmp_path / "run", overwrite=True)
        assert len((tmp_path / "run" / "dropped.jsonl").read_text().splitlines()) == 2
        assert record(tmp_path / "run", "manifest")["status"].startswith("stopped: none of the images")


def test_an_image_that_goes_away_is_not_remembered_as_broken(
    sd, images_file, own_cache, tmp_path, monkeypatch
):
    from prefopt.modalities.image import store as image_store

    data = images_file([pair(n) for n in range(2)])
    real, files = image_store.decode, [*tmp_path.glob("row-1-chosen*.png")]

    def unplugged(ref: Any) -> Any:
        for file in files:
            if file.exists():
                file.rename(f"{file}.away")
        return real(ref)

    monkeypatch.setattr(image_store, "decode", unplugged)
    with pytest.raises(ValueError, match=r"row-1-chosen_image\.png: no such file"):
        train("diffusion_dpo", sd, data, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setenv("PREFOPT_CACHE", str(own_cache))
    for file in files:
        Path(f"{file}.away").rename(file)
    train("diffusion_dpo", sd, data, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "dropped.jsonl").read_text() == ""


# ---- the cache of latents


def test_second_run_encodes_nothing(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(3)])

    def encoded(folder: str, **options: Any) -> str:
        train("diffusion_dpo", sd, data, tmp_path / folder, max_steps=1, **options)
        return note(tmp_path / folder, "latent cache").split(" encoded")[0]

    assert encoded("first") == "6 images and 3 prompts"
    assert encoded("again", seed=1, beta=100.0) == "0 images and 0 prompts"
    assert encoded("smaller", resolution=16) == "6 images and 0 prompts"
    assert encoded("whole", crop="none") == "6 images and 0 prompts"
    assert encoded("lora", **LORA) == "0 images and 0 prompts"


# ---- ties


def pick(n: int, label: float) -> dict[str, Any]:
    return {
        "caption": f"picture {n}",
        "jpg_0": png(picture(2 * n)),
        "jpg_1": png(picture(2 * n + 1)),
        "label_0": label,
    }


PICKS = [(0, 1.0), (1, 0.0), (2, 0.5)]


@pytest.mark.parametrize(
    ("policy", "counts"),
    [("drop", {"wins": 2}), ("as_win", {"wins": 3}), ("soft_half", {"wins": 2, "soft": 1})],
)
def test_ties_of_pick_a_pic(policy, counts, sd, images_file, own_cache, tmp_path):
    data = images_file([pick(n, label) for n, label in PICKS])
    train("diffusion_dpo", sd, data, tmp_path / "run", ties=policy, max_steps=1)
    found = record(tmp_path / "run", "data")["comparisons"]
    assert {k: v for k, v in found.items() if v} == counts


def test_ties_need_a_decision(sd, images_file, own_cache, tmp_path):
    data = images_file([pick(n, label) for n, label in PICKS])
    with pytest.raises(ValueError, match=r"1 of 3 .*ties=drop.*as_win.*soft_half.*dpo_rk"):
        train("diffusion_dpo", sd, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dpo_rk_learns_from_ties(sd, images_file, own_cache, tmp_path):
    data = images_file([pick(n, label) for n, label in PICKS])
    result = train("dpo_rk", sd, data, tmp_path / "run", beta=500.0, nu=3.0, noise_epochs=1, max_steps=20)
    # Rao-Kupper at zero margin: 1/4 each for a win and a loss, 1/2 for a tie
    assert column(result, "loss")[0] == pytest.approx((2 * math.log(4) + math.log(2)) / 3, rel=1e-4)
    assert column(result, "ties/share") == pytest.approx([1 / 3] * 20)
    assert column(result, "ties/loss")[0] == pytest.approx(math.log(2), rel=1e-4)
    assert column(result, "rewards/margins")[-1] > 0.5
    assert column(result, "ties/margin_abs")[-1] < 0.5 * column(result, "rewards/margins")[-1]


# ---- keys


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("simpo", {}, ["simpo trains text models", "is not one", "method for image models, such as dpo"]),
        ("diffusion_dpo+0.5*simpo", {}, ["simpo trains text models", "is not one"]),
        ("diffusion_dpo+spo", {}, ["spo", "alone"]),
        ("diffusion_dpo", {"candidates": 8}, ["candidates", "sample while training"]),
        ("diffusion_dpo", {"feature_scale": 2.0}, ["feature_scale", "lrm"]),
        ("diffusion_dpo", {"max_length": 64, "load_in_4bit": True}, ["max_length: for text models", "load_in_4bit: for text models"]),
        ("diffusion_dpo", {"resolution": 30}, ["divisible by 4", "30"]),
        ("diffusion_dpo", {"resolutoin": 32}, ["resolutoin", "did you mean 'resolution'"]),
        ("diffusion_dpo", {**LORA, "lora_dropout": 0.1}, ["lora_dropout"]),
        ("mapo", {"reference": "live"}, ["mapo", "reference"]),
    ],
)  # fmt: skip
def test_keys_that_mean_nothing_here(method, options, words, sd, images_file, own_cache, tmp_path):
    data = images_file([pair(0), pair(1)])
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the words are checked below
        train(method, sd, data, tmp_path / "run", **options)
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "run" / "model").exists()


def test_image_keys_in_a_run_on_text(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file([{"prompt": "Sort: fig", "chosen": " fig", "rejected": " red"}])
    with pytest.raises(
        ConfigError,
        match=r"(?s)2 keys .* resolution: for image models.* prompt_dropout: for diffusion models",
    ):
        train("dpo", tiny_model, data, tmp_path / "run", resolution=64, prompt_dropout=0.1)


@pytest.mark.parametrize("method", ["diffusion_dpo", "dpo + 0.5*mapo", "diffusion-kto", "spo", "lrm"])
def test_image_methods_in_a_run_on_text(method, tiny_model, rows_file, own_cache, tmp_path):
    """Whatever keys the method sets by itself."""
    data = rows_file([{"prompt": "Sort: fig", "chosen": " fig", "rejected": " red"}])
    name = method.rpartition("*")[2].replace("-", ".")
    for model, found in ((tiny_model, "llama"), ("world:text", "world:text")):
        message = (
            rf"{name} trains image models, and .*{found} is not one: .*model_index.json.*such as dpo, ipo or"
        )
        with pytest.raises(ConfigError, match=message):
            prefopt.train(method, model=model, data=data, output_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_saved_configuration_repeats_the_run(sd, images_file, own_cache, tmp_path):
    from prefopt.cli.main import main

    data = images_file([pair(n) for n in range(3)])
    given = {
        **QUIET,
        "max_steps": 2,
        "resolution": 16,
        "crop": "none",
        "error_weight": "min_snr",
        "beta": 700,
    }
    arguments = [f"{key}={value}" for key, value in given.items()]
    first = tmp_path / "first"
    with pytest.raises(SystemExit) as end:
        main(["train", "diffusion_dpo", f"model={sd}", f"data={data}", f"output_dir={first}", *arguments])
    assert not end.value.code
    with pytest.raises(SystemExit) as end:
        main(["train", str(first / "config.yaml"), f"output_dir={tmp_path / 'again'}"])
    assert not end.value.code
    assert weights(tmp_path / "again") == weights(first)
    assert lines(tmp_path / "again") == lines(first)
