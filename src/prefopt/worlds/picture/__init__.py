"""The picture world: captioned shapes with exact rewards, and a small Stable Diffusion that draws them (`world.py`)."""

from prefopt.worlds.base import World

WORLD = World(class_name="PictureWorld", modality="image", prompts={"train": 2000, "test": 400})
