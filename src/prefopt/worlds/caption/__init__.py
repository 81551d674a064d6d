"""The caption world: pictures of shapes with exact captions, and a small vision-language model that adds what is not there (`world.py`)."""

from prefopt.worlds.base import World

WORLD = World(class_name="CaptionWorld", modality="vision_language", prompts={"train": 600, "test": 200})
