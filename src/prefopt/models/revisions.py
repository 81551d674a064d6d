"""One version of a hub repository: as a folder on disk, and by the name that others can load it by."""

from __future__ import annotations

from pathlib import Path

from prefopt.models.sources import looks_like_path

LEFT = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*")
"""Files of a repository that nothing here loads."""


def at_revision(source: str, revision: str) -> Path:
    """The folder of a hub repository at a branch, tag or commit, downloaded unless it is in the hub's cache.

    Args:
        source: hub id.
        revision: branch, tag or commit.

    Raises:
        ValueError: `source` is a folder, or has no such revision.
        OSError: it cannot be had: no network, no such repository, no access.
    """
    if Path(source).expanduser().is_dir() or looks_like_path(source) or ":" in source:
        raise ValueError(
            f"model_revision={revision} names a version on the hub, and {source} is none of its ids: leave it out"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, ignore_patterns=list(LEFT)))
    except RevisionNotFoundError:
        raise ValueError(
            f"{source} has no branch, tag or commit {revision!r}: look at its list of files on the hub"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise OSError(
            f"{source} at {revision} is not in the hub's cache and could not be downloaded: {' '.join(str(error).split())[:200]}"
        ) from error


def hub_name(folder: Path) -> tuple[str, str] | None:
    """The id and the commit of a folder in the hub's cache; None for any other.

    Example:
        >>> hub_name(Path("/home/me/.cache/huggingface/hub/models--a--b/snapshots/0f1e2d"))
        ('a/b', '0f1e2d')
    """
    if folder.parent.name != "snapshots" or not folder.parent.parent.name.startswith("models--"):
        return None
    return folder.parent.parent.name.removeprefix("models--").replace("--", "/"), folder.name
