"""What every world offers, found by being there."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import prefopt.worlds
from prefopt.worlds import (
    all_worlds,
    find,
    get_world,
    world_modality,
    world_of,
    world_prompts,
)


def test_worlds_are_the_folders_that_are_there():
    here = Path(prefopt.worlds.__file__).parent
    assert list(all_worlds()) == sorted(file.parent.name for file in here.glob("*/__init__.py"))


@pytest.mark.parametrize("name", all_worlds())
def test_a_world_offers_what_a_run_asks_for(name):
    world = get_world(name, seed=3)
    assert world.seed == 3
    assert type(world).__name__ == find(name).class_name
    # as a run calls them, whose model need not be made for that
    inspect.signature(world.comparisons).bind(3, split="train", label_noise=0.1, seed=1)
    inspect.signature(world.verify).bind("prompt", "sample")
    inspect.signature(world.model_dir).bind()
    for split in ("train", "test"):
        count = world_prompts(f"world:{name}", split)
        prompts = world.prompts(count, split)
        assert len(prompts) == count
        assert prompts[:5] == world.prompts(5, split)
    if name not in (
        "scene",  # whose prompts name one of four styles; what differs between splits are the scenes
        "caption",  # whose prompts are all alike; what differs are the pictures
        "film",  # whose prompts ask about one of 24 objects; what differs are the clips
    ):
        assert not set(world.prompts(50)) & set(prompts)
    assert world_modality(f"world:{name}") == find(name).modality


def test_a_source_that_names_a_world():
    assert world_of("world:text") == get_world("text")
    assert world_of("world") is world_of("rows.jsonl") is world_of("text") is None
    assert world_modality("rows.jsonl") is None
    assert [world_modality(f"world:{name}") for name in all_worlds()] == [
        "vision_language",
        "vision_language",
        "motion",
        "image",
        "control",
        "text",
    ]
    # "train" is any split but "test"
    assert [world_prompts("world:text", split) for split in ("train", "validation", "test")] == [
        400,
        400,
        100,
    ]
    assert [world_prompts("world:picture", split) for split in ("train", "test")] == [2000, 400]


def test_an_unknown_world_is_told_beside_those_that_there_are():
    for ask in (world_of, world_modality, lambda source: world_prompts(source, "test")):
        with pytest.raises(
            ValueError,
            match="no world is called 'flim'; there are: caption, film, motion, picture, scene, text",
        ):
            ask("world:flim")


def test_asking_about_worlds_is_cheap():
    code = (
        "import sys, prefopt.worlds as worlds\n"
        "assert worlds.world_modality('world:picture') == 'image'\n"
        "assert worlds.world_prompts('world:picture', 'test') == 400\n"
        "print(*{'torch', 'numpy', 'transformers', 'importlib.metadata'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_models_and_samples_are_found_again_in_caches_of_before(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    places = [
        get_world(name, seed=2)._place(kind, **more)
        for name in ("text", "picture")
        for kind, more in (("model", {}), ("samples", {"n": 3, "split": "test"}))
    ]
    assert {place.parent for place in places} == {tmp_path / "worlds"}
    assert [place.name for place in places] == [
        "text-model-a79162995171977a2daf",
        "text-samples-c20774b026facc08c5b6",
        "picture-model-93b11bfab770933945b5",
        "picture-samples-55e62b3c400f6a67c78a",
    ]
