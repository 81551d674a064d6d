"""The scene world: pictures of shapes with exact maps of what is where, and a small ControlNet that follows them roughly (`world.py`)."""

from prefopt.worlds.base import World

WORLD = World(class_name="SceneWorld", modality="control", prompts={"train": 512, "test": 128})
