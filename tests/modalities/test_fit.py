"""Which methods train which models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefopt import methods
from prefopt.config import ConfigError, TrainConfig
from prefopt.modalities import find
from prefopt.modalities.fit import fits, kind_for


def given(method: str, model: str, **keys: str) -> TrainConfig:
    return TrainConfig(method=method, model=model, data="d", **keys)


@pytest.mark.parametrize(
    ("name", "text", "image"), [("dpo", True, True), ("kto", True, False), ("lpo", False, True)]
)
def test_a_method_fits_models_that_have_what_it_trains(name, text, image):
    method = methods.find(name)
    assert (fits(method, find("text")), fits(method, find("image"))) == (text, image)


@pytest.mark.parametrize("method", ["dpo", "dpo+0.2*kto", "ssapo", "kto"])
def test_text_methods_train_the_text_world(method):
    assert kind_for(given(method, "world:text")).name == "text"


@pytest.mark.parametrize("method", ["dpo", "dpo+0.5*mapo", "lpo", "lrm"])
def test_image_methods_train_the_picture_world(method):
    assert kind_for(given(method, "world:picture")).name == "image"


def test_a_controlnet_beside_a_base_pipeline_makes_it_a_control_model():
    assert kind_for(given("condition_po", "world:picture", controlnet="new")).name == "control"


@pytest.mark.parametrize(
    ("method", "model", "message"),
    [
        (
            "lpo",
            "world:text",
            "lpo trains image models, and world:text is not one: give the folder of a diffusers pipeline "
            "(with model_index.json) as model, or take a method for text models, such as dpo, ipo or kto",
        ),
        (
            "dpo+kto",
            "world:picture",
            "kto trains text models, and world:picture is not one: give the folder or hub id of a causal language "
            "model as model, or take a method for image models, such as dpo, ipo or diffusion_dpo",
        ),
        (
            "dpo+lpo",
            "world:picture",
            "lpo has scores of its own and cannot be a term of a sum: run it alone; given dpo+lpo",
        ),
        (
            "dpo",
            "world:movie",
            "no world is called 'movie'; there are: caption, film, motion, picture, scene, text",
        ),
    ],
)
def test_what_does_not_fit_is_refused(method, model, message):
    with pytest.raises(ConfigError) as error:
        kind_for(given(method, model))
    assert str(error.value) == message


def test_a_method_may_be_here_without_its_modality(monkeypatch):
    of_another = replace(methods.all_methods()["dpo"], name="smell_po", modality="smell")
    monkeypatch.setattr(methods, "find", lambda name: of_another)
    with pytest.raises(
        ConfigError, match="smell models, for which this installation has no modality; world:text is a text"
    ):
        kind_for(given("dpo", "world:text"))
