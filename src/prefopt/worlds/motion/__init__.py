"""The motion world: captioned motions of a stick figure with exact verifiers, and a small diffusion model of them (`world.py`)."""

from prefopt.worlds.base import World

WORLD = World(class_name="MotionWorld", modality="motion", prompts={"train": 2000, "test": 400})
