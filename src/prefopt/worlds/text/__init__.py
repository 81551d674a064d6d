"""The text world: rewrite tasks with an exact score, and a small chat model that does them half well (`world.py`)."""

from prefopt.worlds.base import World

WORLD = World(class_name="TextWorld", modality="text", prompts={"train": 400, "test": 100})
