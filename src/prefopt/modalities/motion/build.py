"""Commands of `prefopt build` for motions; each is a file of the folder `building`."""

from __future__ import annotations

from prefopt.modalities.motion.building.evaluator import motion_evaluator
from prefopt.modalities.motion.building.model import motion_model
from prefopt.modalities.motion.building.motions import motions
from prefopt.modalities.motion.building.retrieval import motion_retrieval

COMMANDS = (motions, motion_model, motion_evaluator, motion_retrieval)
