"""Whether the merged model in a run's folder is of the adapter that is there now: a run may go on after it was merged."""

from __future__ import annotations

import json
from pathlib import Path

from prefopt.files import digest_of, write_whole

FOLDER = "merged"
RECORD = "record/merged.json"


def note_merged(run: Path) -> None:
    """Write down of what a run's merged model was made."""
    (run / RECORD).parent.mkdir(exist_ok=True)
    write_whole(run / RECORD, json.dumps({"model": digest_of(run / "model")}))


def is_current(run: Path) -> bool:
    """Whether a run's merged model was made of the run's model as it is."""
    try:
        made_of = json.loads((run / RECORD).read_text("utf-8"))["model"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(made_of == digest_of(run / "model"))
