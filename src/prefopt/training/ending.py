"""How a run ends, a single one or one of several stages: finished, or stopped with its reason; its pages either way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from prefopt.runs.console import Console
from prefopt.runs.record import Record


@contextlib.contextmanager
def noted_if_stopped(record: Record) -> Iterator[None]:
    """What ends a run before its time is its status, and its pages are written as far as it has come."""
    try:
        yield
    except BaseException as error:
        if record.opened and not _has_finished(record):
            reason = str(error) or type(error).__name__
            if isinstance(error, KeyboardInterrupt):
                reason = "interrupted; go on with resume=true"
            with contextlib.suppress(OSError):  # a full disk has no room for this either
                record.manifest(status=f"stopped: {reason}")
                pages(record)
        raise


def finish(record: Record, console: Console, **facts: Any) -> None:
    """All is there: note it, write the pages, and say where things are.

    Args:
        record: of the run.
        console: the terminal.
        facts: for the manifest.
    """
    record.manifest(status="finished", **facts)
    pages(record)
    console.finished(record.folder)


def publish(record: Record, console: Console) -> None:
    """Upload the model of a run that has finished, where it was configured to be.

    Raises:
        PushError: it could not be; the run is finished all the same, and the message says how to try again.
    """
    config = record.config
    if not (record.main and config.push_to_hub):
        return
    from prefopt.hub import PushError, again, push

    try:
        pushed = push(record.folder, config.hub_model_id, config.hub_private_repo)
    except (OSError, ValueError) as error:
        raise PushError(
            f"the run has finished, and is whole in {record.folder}, but its model is not on the hub: {error}. "
            f"Try again: {again(record.folder, config)}"
        ) from error
    console.say(f"hub:    {pushed.url}")
    for note in pushed.notes:
        console.hint("note", note)


def _has_finished(record: Record) -> bool:
    """Whether all is there, so that what goes wrong afterwards does not make the run a stopped one."""
    return record.has("manifest") and record.read("manifest").get("status") == "finished"


def pages(record: Record) -> None:
    """Report and model card of a run, as far as it has come."""
    if record.main:
        from prefopt.report import write_pages

        write_pages(record.folder)
