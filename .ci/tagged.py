"""Exit with an error unless the tag in the environment's TAG is that of the version: v0.1.0 for 0.1.0."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

VERSION = Path(__file__).parents[1] / "src" / "prefopt" / "version.py"

if __name__ == "__main__":
    meant = "v" + runpy.run_path(str(VERSION))["__version__"]
    given = os.environ.get("TAG")
    if given != meant:
        sys.exit(f"the version says that the tag is {meant}; given {given}")
