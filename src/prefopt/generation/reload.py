"""How a server that loads no folders by name comes to serve a round's weights: vLLM's adapters, or a command of the user's."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefopt.generation.server import Connection, import_openai

LORA = "lora"
PLACE = "{model}"
NOBODY = "prefopt-asks-whether-you-unload"
PATIENCE = 600.0
"""Seconds that a server may take to come back."""
GOING = 30.0
"""Seconds that an old server may still answer behind the command that ends it."""


def check_reload(url: str, how: str) -> None:
    """Find out before anything expensive whether a server can be given weights so.

    Args:
        url: of the server, which answers already; of a command, nobody is asked.
        how: "lora", or a command with {model}.

    Raises:
        ValueError: a server without the endpoint, or a command without a place for the model, or that is not there.
    """
    if how == LORA:
        if not _adapter(url, "unload", lora_name=NOBODY)[1]:
            raise ValueError(
                f"the server at {url} has no /load_lora_adapter: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve "
                "BASE --enable-lora --max-lora-rank RANK"
            )
        return
    words = _words(how, "MODEL")
    if shutil.which(words[0]) is None:
        raise ValueError(f"generation_reload: there is no program {words[0]!r} (given {how!r})")


@contextlib.contextmanager
def served(url: str, folder: str, how: str, base: str) -> Iterator[str]:
    """While open, the server serves what a folder holds.

    Args:
        url: of the server.
        folder: of a saved model or adapter; or a hub id.
        how: "lora": an adapter is loaded under its folder's name, and unloaded afterwards; a folder that is none is the
            model that the server was started with. Else a command that is run with the folder in place of {model} and must end
            when the weights are there, or on their way; only a server that names the folder is known to have them.
        base: the name by which the server may know the model that it was started with.

    Yields:
        The name to ask for.

    Raises:
        ValueError: the server refuses the adapter, the command fails, or the server then serves something else; says what was
            said.
        ConnectionError: the server does not come back.
    """
    if how != LORA:
        _run(how, folder)
        _await(url, folder)
        yield folder
        return
    if not (Path(folder) / "adapter_config.json").is_file():
        yield _only(url, base, _names(url))
        return
    _adapter(
        url, "unload", lora_name=folder
    )  # of a round that was interrupted; other weights may have had the name
    said, loaded = _adapter(url, "load", lora_name=folder, lora_path=folder)
    if not loaded or said:
        raise ValueError(
            f"the server at {url} does not load the adapter {folder}: {said or 'it has no such endpoint'}. It must see the folder, "
            "and be started with --enable-lora and a --max-lora-rank of at least lora_r"
        )
    try:
        yield folder
    finally:
        _adapter(url, "unload", lora_name=folder)


def _adapter(url: str, verb: str, **body: Any) -> tuple[str, bool]:
    """What the server said against it, empty if it did it; and whether it knows the endpoint."""
    openai = import_openai()
    with Connection(url, "any") as server:
        try:
            server.client.post(f"/{verb}_lora_adapter", body=body, cast_to=str)
        except openai.APIStatusError as error:
            text = error.response.text.strip()
            # FastAPI's own word for a path that it does not have
            return text[:300], not (error.status_code in (404, 405) and '"detail"' in text)
    return "", True


def _words(how: str, folder: str) -> list[str]:
    try:
        words = shlex.split(how)
    except ValueError as error:
        raise ValueError(f"generation_reload={how!r} is no command: {error}") from None
    if not words or PLACE not in how:
        raise ValueError(
            f"generation_reload={how!r}: needed lora, or a command in which {PLACE} stands for the model's folder, as in "
            f"'./restart.sh {PLACE}'"
        )
    return [word.replace(PLACE, folder) for word in words]


def _run(how: str, folder: str) -> None:
    words = _words(how, folder)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise ValueError(
            f"generation_reload: {shlex.join(words)} ended with {done.returncode}: {said or 'nothing was said'}. Run again to "
            "continue"
        )


def _await(url: str, folder: str) -> None:
    """Wait until a server serves a folder by its own name.

    Any other name may be that of weights from before: a server that a command could not replace answers on and on.
    """
    until = None
    while folder not in (names := [name for name, adapter in _names(url, wait=True) if not adapter]):
        until = until or time.monotonic() + GOING
        if time.monotonic() > until:
            raise ValueError(
                f"generation_reload: the command has ended, and the server at {url} serves {', '.join(names) or 'nothing'}; needed "
                f"{folder}, the round's model by the name of its folder: another server may have kept the port (end it), or the "
                "command must start one that serves {model} under that name. Run again to continue"
            )
        time.sleep(0.5)


def _names(url: str, wait: bool = False) -> list[tuple[str, bool]]:
    """(name, whether it is an adapter) of what a server serves; waits for one that is starting."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with Connection(url, "any", retries=0) as server:
                return [
                    (m.id, bool((m.model_extra or {}).get("parent")))
                    for m in server.client.models.list().data
                ]
        except (ConnectionError, import_openai().APIError) as error:
            if not wait or time.monotonic() > until:
                raise ConnectionError(
                    f"the server at {url} does not say what it serves ({error}). What had arrived is kept; run again to continue"
                ) from error
            time.sleep(1.0)


def _only(url: str, wanted: str, names: list[tuple[str, bool]]) -> str:
    """The name of a model among those that are served: the wanted one, or the only one that is no adapter."""
    own = [name for name, adapter in names if not adapter]
    if wanted in own:
        return wanted
    if len(own) == 1:
        return own[0]
    raise ValueError(
        f"the server at {url} serves {', '.join(own) or 'nothing'}, and which of them is {wanted} is not clear: serve one model, or "
        f"give it that name (--served-model-name)"
    )
