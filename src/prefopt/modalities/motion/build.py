"""Commands of `prefopt build` for motions; each is a file of the folder `building`."""

from __future__ import annotations

from prefopt.modalities.motion.building.motions import motions

COMMANDS = (motions,)
