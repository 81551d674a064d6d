"""The film world: long videos of moving shapes, and a small vision-language model that has seen short ones only (`world.py`)."""

from prefopt.worlds.base import World

WORLD = World(class_name="FilmWorld", modality="vision_language", prompts={"train": 1024, "test": 256})
