"""The Hugging Face Hub: what is asked before a run that ends there, and the upload.

An upload is one commit: all of the model's files, its card as README.md, and away with weights that were there before. So
the repository holds one whole model at any time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from prefopt.config import ConfigError, TrainConfig, read_yaml, run_folder
from prefopt.report.loading import read_json
from prefopt.report.model_card import folder_card, hub_card
from prefopt.runs.merged import FOLDER, is_current
from prefopt.version import __version__

CARD = "README.md"
LORA = "*_lora_weights.safetensors"
MODELS = ("config.json", "adapter_config.json", "model_index.json", LORA)
"""Files by which a folder is known to hold a model."""
REPLACED = ("*.safetensors", "*.safetensors.index.json", "*config.json", "*model_index.json", "*.bin")
"""Files of an earlier upload that would be taken for a part of the new model."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


class PushError(OSError):
    """A model that could not be uploaded; the message says why, and what to do. Nothing on disk has changed."""


@dataclass(frozen=True)
class Account:
    """Whose token it is.

    Attributes:
        name: of the account.
        owners: whose repositories it may have: its own and its organizations'.
    """

    name: str
    owners: tuple[str, ...]


@dataclass(frozen=True)
class Pushed:
    """An uploaded model.

    Attributes:
        repo_id: owner/name.
        url: of its page.
        files: what was uploaded.
        notes: what a user should know of it.
    """

    repo_id: str
    url: str
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def check_push(config: TrainConfig, ask: bool = True) -> None:
    """Find what would keep a run's model from the hub, before the run costs anything.

    Args:
        config: of the run; nothing is asked unless it has `push_to_hub`.
        ask: whether this process may ask the hub; of several, one does.

    Raises:
        ConfigError: no network, no token, one that may not write, or a name that cannot be.
    """
    if not config.push_to_hub or not ask:
        return
    folder = run_folder(config)
    try:
        full_id(config.hub_model_id, folder, whose())
    except (PushError, ValueError) as error:
        raise ConfigError(
            f"push_to_hub=true: {error}. Or leave push_to_hub out, and upload later: prefopt push {folder}"
        ) from error


def push(folder: str | Path, repo_id: str | None = None, private: bool = False) -> Pushed:
    """Upload the model of a finished run, or a model's or an adapter's folder, with its card.

    Of a run, `model/` and the card are uploaded, and nothing else: no data, samples, metrics or checkpoints.

    Args:
        folder: a run's folder, its `model/` or `merged/`, or another folder that holds a model.
        repo_id: owner/name; a name alone is the account's. None: as the run was configured, else the folder's name.
        private: make the repository a private one.

    Returns:
        Where it is.

    Raises:
        FileNotFoundError, ValueError: the folder holds no model that can be uploaded, or the name cannot be.
        PushError: the hub cannot be reached, or does not take it.

    Example:
        >>> push("runs/dpo", "me/my-model").url                                              # doctest: +SKIP
        'https://huggingface.co/me/my-model'
    """
    place = Path(folder).expanduser()
    run, model = find_model(place)
    values = read_yaml(run / "config.yaml") if run is not None else {}
    repo_id = full_id(repo_id or values.get("hub_model_id"), run or place, whose())
    files = files_of(model)
    private = private or bool(values.get("hub_private_repo"))
    with told(f"{model} could not be uploaded to {repo_id}"):
        card = folder_card(model, repo_id) if run is None else hub_card(run, repo_id, model.name)
        url = commit(repo_id, model, files, card, private)
    return Pushed(repo_id, url, (*files, CARD), tuple(notes_on(model, values)))


def find_model(place: Path) -> tuple[Path | None, Path]:
    """The run that a folder belongs to, where there is one, and the model's folder.

    Raises:
        FileNotFoundError, ValueError: there is no model.
    """
    if not place.is_dir():
        raise FileNotFoundError(f"there is no folder {place}: give a run's, or a model's")
    within = place.name in ("model", FOLDER) and (place.parent / "config.yaml").is_file()
    run = place.parent if within else place if (place / "config.yaml").is_file() else None
    if run is not None:
        status = read_json(run / "record" / "manifest.json").get("status", "unknown")
        if status != "finished":
            raise ValueError(f"the run in {run} has not finished ({status}): go on with resume=true first")
        model = run / (place.name if within else "model")
        if not any(model.rglob("*.safetensors")):
            raise ValueError(
                f"{model} holds no weights: train again with overwrite=true, or give another run"
            )
        if model.name == FOLDER and not is_current(run):
            raise ValueError(
                f"{model} was not merged from {run / 'model'} as it is now: remove it, and merge again with prefopt merge {run}"
            )
    else:
        model = place
        if not any(any(model.glob(name)) for name in MODELS):
            raise ValueError(
                f"{model} holds no model: needed one of {', '.join(MODELS)}. Give a run's folder, or a model's"
            )
    return run, model


def files_of(model: Path) -> tuple[str, ...]:
    """Paths of a model's files within its folder, without hidden ones and any card of a library's own.

    Raises:
        ValueError: some of them are pickles.
    """
    paths = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file())
    names = [
        p.as_posix()
        for p in paths
        if not any(part.startswith(".") for part in p.parts) and p.as_posix() != CARD
    ]
    if pickles := [name for name in names if any(fnmatch(name, pattern) for pattern in PICKLES)]:
        raise ValueError(
            f"{model} holds pickles, which run code when they are read ({', '.join(pickles[:4])}): remove them, and save "
            "weights as safetensors"
        )
    return tuple(names)


def full_id(given: str | None, folder: Path, account: Account) -> str:
    """The repository that is meant, as owner/name.

    Args:
        given: owner/name, or a name alone; None: the folder's name.
        folder: of the run or model.
        account: whose token it is.

    Raises:
        ValueError: no such name can be, or another owner's is meant.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = given or folder.resolve().name
    repo_id = name if "/" in name else f"{account.name}/{name}"
    source = f"hub_model_id={given}" if given else f"the folder's name, {name},"
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"{source} is no name on the hub, which is owner/name of letters, digits, -, _ and . "
            f"({' '.join(str(error).split())[:160]}): give another hub_model_id"
        ) from None
    owner = repo_id.partition("/")[0]
    if owner.lower() not in [name.lower() for name in account.owners]:
        raise ValueError(
            f"{source} belongs to {owner}, and the token is {account.name}'s, who may write to "
            f"{', '.join(account.owners)}: give another hub_model_id, or log in as one of {owner}"
        )
    return repo_id


def whose() -> Account:
    """Ask the hub whose token is set here.

    Raises:
        PushError: nobody can be asked, there is no token, or it may only read.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise PushError(
            "HF_HUB_OFFLINE=1 (or TRANSFORMERS_OFFLINE=1) keeps huggingface_hub from the network: unset it"
        )
    if get_token() is None:
        raise PushError(
            "there is no token of the Hugging Face Hub: log in with `hf auth login`, or set HF_TOKEN"
        )
    try:
        found = HfApi().whoami()
    except Exception as error:  # its HTTP library has errors of its own, for want of a network
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            raise PushError(
                f"{constants.ENDPOINT} does not take the token ({one_line(error)}): log in anew"
            ) from error
        raise PushError(
            f"{constants.ENDPOINT} cannot be asked whose token this is ({one_line(error)})"
        ) from error
    token = (found.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise PushError(
            f"the token {token.get('displayName', '')!r} of {found['name']} may only read: log in with one that may write"
        )
    return Account(found["name"], (found["name"], *(org["name"] for org in found.get("orgs") or ())))


def commit(repo_id: str, model: Path, files: tuple[str, ...], card: str, private: bool) -> str:
    """Make the repository where it is not there yet, and commit all files and the card to it; returns its address.

    Raises:
        PushError: it is there already, and public, and a private one was asked for.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="prefopt", library_version=__version__)
    url = api.create_repo(repo_id, private=private or None, exist_ok=True)
    if private and not api.repo_info(repo_id).private:
        raise PushError(
            f"{url} is there already, and is public: make it private in its settings, or give another name"
        )
    gone = [
        name
        for name in api.list_repo_files(repo_id)
        if name not in files and any(fnmatch(name, pattern) for pattern in REPLACED)
    ]
    api.create_commit(
        repo_id,
        [
            *(CommitOperationDelete(name) for name in gone),
            *(CommitOperationAdd(name, str(model / name)) for name in files),
            CommitOperationAdd(CARD, card.encode()),
        ],
        commit_message=f"Model and card, by prefopt {__version__}",
    )
    return str(url)


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn whatever the hub's library raises into one sentence."""
    try:
        yield
    except PushError as error:
        raise PushError(f"{what}: {error}") from error
    except Exception as error:  # of HTTP, of transfers in Rust, of files
        raise PushError(f"{what}: {one_line(error)}") from error


def notes_on(model: Path, values: Mapping[str, Any]) -> Iterator[str]:
    """What others who load the model will miss.

    Args:
        model: its folder.
        values: configuration of its run; empty where there is none.
    """
    base = read_json(model / "adapter_config.json").get("base_model_name_or_path")
    if base is None and any(model.glob(LORA)):  # which do not name it
        base = values.get("model")
    if base and (Path(base).expanduser().is_dir() or Path(base).is_absolute() or base.startswith("world:")):
        yield (
            f"these are adapters of {base}, which only this machine has: others have to be given the base model, too. Train from "
            "a hub id, or `prefopt merge` the adapters and push the merged folder"
        )


def again(folder: Path, config: TrainConfig) -> str:
    """The command that uploads a run's model."""
    name = f" --id {config.hub_model_id}" if config.hub_model_id else ""
    return f"prefopt push {folder}{name}{' --private' if config.hub_private_repo else ''}"


def one_line(error: BaseException) -> str:
    """What an error says on one line; where it is a transfer's, what the server said."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    said = re.sub(r" ?For more information check: \S+", "", " ".join(str(error).split()))
    return (said or type(error).__name__)[:500].rstrip(".")
