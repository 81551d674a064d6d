"""Tiny pipelines and judges, made once for all tests of models."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from modalities.image.models.pipeline_cases import KINDS, Folders
from prefopt.modalities.image.models.latent_reward import LatentRewardModel

FAMILIES = ["sd", "sdxl", "sd3", "sd3_t5"]


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Pipeline folders by kind, built when first asked for; read them, never write to them."""
    root = tmp_path_factory.mktemp("pipelines")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else KINDS[kind](root / kind)

    return folder


@pytest.fixture(scope="package", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="package")
def judges(folders: Folders) -> dict[str, LatentRewardModel]:
    """By family; read them, never change them."""
    return {
        name: LatentRewardModel.from_pipeline(
            folders(name), feature_block=1 if "sd3" in name else None
        ).eval()
        for name in FAMILIES
    }


@pytest.fixture
def judge(judges: dict[str, LatentRewardModel], family: str) -> LatentRewardModel:
    """One of each family, to do with as you like."""
    return copy.deepcopy(judges[family])


@pytest.fixture
def sd(judges: dict[str, LatentRewardModel]) -> LatentRewardModel:
    """A judge of Stable Diffusion's latents, to do with as you like."""
    return copy.deepcopy(judges["sd"])
