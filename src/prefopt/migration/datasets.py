"""What data sets are called in LLaMA-Factory (entries of dataset_info.json) and in Axolotl (paths and types of rows)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.config import ConfigError
from prefopt.migration.draft import GIVEN, Draft, as_list

JOIN = "prefopt trains on one source. Join them, for example with datasets.concatenate_datasets(...).to_parquet(FILE), and give the file: "
PLAIN = (
    "its rows are plain texts, which {tool} puts into the chat template as the user's and the assistant's turns; prefopt takes texts as "
    "they are. To train as before, write prompts and answers as messages (docs/data.md)"
)
OURS: Mapping[str, str] = {
    "dataset": "data", "eval_dataset": "eval_data", "datasets": "data", "test_datasets": "eval_data",
}  # fmt: skip
"""What each of the tools' keys becomes."""
PROMPTS = ("prompt", "instruction", "question", "conversations", "messages")
"""Columns that prefopt takes prompts from by itself."""
TAGS = {"role_tag": ("from", "role"), "content_tag": ("value", "content"), "user_tag": ("human", "user"),
        "assistant_tag": ("gpt", "assistant"), "system_tag": ("system",)}  # fmt: skip
"""What messages may be made of, by LLaMA-Factory's words."""


def registered(draft: Draft, key: str, place: Path) -> dict[str, Any]:
    """The keys for a data set that a LLaMA-Factory file calls by its name.

    Args:
        draft: of the file.
        key: "dataset" or "eval_dataset".
        place: folder of the file, below which dataset_info.json is looked for after the current folder.

    Returns:
        `data`, and `split`, `data_config`, `rename_columns` where they are needed; empty if it cannot be told, which is
        noted as a problem.
    """
    ours = OURS[key]
    names = [str(name) for name in as_list(draft.take(key))]
    if ours in draft.overrides:
        draft.leave(GIVEN.format(key=ours), key)
        return {}
    if len(names) > 1:
        draft.refuse(f"{key}: {', '.join(names)}: {JOIN}{ours}=FILE")
    if len(names) != 1:
        return {}
    name, folder, info = names[0], draft.take("dataset_dir", "data"), place_of(draft, place)
    if info is None:
        draft.refuse(
            f"{key}: {name} is an entry of dataset_info.json, which is neither in {folder} nor in {place / str(folder)}: give the folder "
            f"(dataset_dir=...) in the file, or the data itself: {ours}=FILE_OR_ID"
        )
        return {}
    entries = registry(info)
    if name not in entries:
        draft.refuse(
            f"{key}: {info / 'dataset_info.json'} has no entry {name!r}; it has {', '.join(list(entries)[:8])}"
        )
        return {}
    return _entry(draft, key, name, entries[name], info)


def registry(folder: Path) -> dict[str, dict[str, Any]]:
    """A folder's dataset_info.json.

    Raises:
        ConfigError: it is no object of entries.
    """
    path = folder / "dataset_info.json"
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ConfigError(f"{path} must hold an object of entries by name")
    return entries


def place_of(draft: Draft, place: Path) -> Path | None:
    """The folder of the dataset_info.json that a file means: `dataset_dir`, from here or from the file's folder."""
    folder = Path(str(draft.take("dataset_dir", "data")))
    return next((at for at in (folder, place / folder, place) if (at / "dataset_info.json").is_file()), None)


def _entry(draft: Draft, key: str, name: str, entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if entry.get("hf_hub_url"):
        out["data"] = entry["hf_hub_url"]
    elif entry.get("file_name"):
        out["data"] = str(folder / entry["file_name"])
    else:
        draft.refuse(
            f"{key}: {name} comes by {', '.join(entry)}: prefopt reads files and hub ids; give one: {OURS[key]}=FILE_OR_ID"
        )
        return {}
    if entry.get("subset"):
        out["data_config"] = entry["subset"]
    if entry.get("split", "train") != "train":
        out["split"] = entry["split"]
    if entry.get("folder"):
        draft.check(
            f"of {name}, only the folder {entry['folder']!r} is meant: download it, and give it as data=FOLDER",
            key,
        )
    columns = dict(entry.get("columns", {}))
    single = "kto_tag" in columns
    chat = entry.get("formatting", "alpaca") == "sharegpt"
    rename: dict[str, str] = {}
    if chat:
        _messages(draft, key, name, entry, columns, single)
        if (at := columns.get("messages", "conversations")) not in PROMPTS:
            rename[at] = "messages"
    else:
        draft.check(PLAIN.format(tool=draft.tool), key)
        if (at := columns.get("prompt", "instruction")) not in PROMPTS:
            rename[at] = "instruction"
        for theirs, ours in (("query", "input"), ("response", "completion")):
            if theirs in columns and columns[theirs] != ours and (theirs == "query" or single):
                rename[columns[theirs]] = ours
        if single and "response" not in columns:
            rename["output"] = "completion"
    for theirs, ours in (
        ("chosen", "chosen"),
        ("rejected", "rejected"),
        ("kto_tag", "label"),
        ("system", "system"),
        ("images", "images"),
    ):
        if theirs in columns and columns[theirs] not in (ours, f"{ours}_prompt"):
            rename[columns[theirs]] = ours
    if rename:
        out["rename_columns"] = rename
    if left := [column for column in ("tools", "videos", "audios", "history") if column in columns]:
        draft.check(
            f"of {name}, the columns {', '.join(columns[c] for c in left)} ({', '.join(left)}) may need another form (docs/data.md)",
            key,
        )
    return out


def _messages(
    draft: Draft, key: str, name: str, entry: Mapping[str, Any], columns: Mapping[str, str], single: bool
) -> None:
    tags = entry.get("tags", {})
    if odd := [f"{tag}: {value}" for tag, value in tags.items() if tag in TAGS and value not in TAGS[tag]]:
        draft.refuse(
            f"{key}: messages of {name} have {', '.join(odd)}; prefopt reads role and content (user, assistant), or from and value "
            "(human, gpt): rename them in the data"
        )
    if single:
        draft.check(
            f"rows of {name} hold the answer as the last message; prefopt needs prompt, completion and label: cut the last message off into "
            "a column of its own",
            key,
        )


def sources(draft: Draft, key: str) -> dict[str, Any]:
    """The keys for the one entry of Axolotl's `datasets` or `test_datasets`.

    Returns:
        `data`, and `split`, `data_config`, `rename_columns` where they are needed; empty if there is none, or several, which is
        noted as a problem.
    """
    ours = OURS[key]
    if ours in draft.overrides:
        draft.leave(GIVEN.format(key=ours), key)
        return {}
    entries = draft.entries(key)
    if len(entries) > 1:
        draft.refuse(f"{key}: {', '.join(str(entry.get('path')) for entry in entries)}: {JOIN}{ours}=FILE")
    if len(entries) != 1:
        return {}
    entry = entries[0]
    files = as_list(entry.pop("data_files", None))
    path = entry.pop("path", None)
    if len(files) > 1:
        draft.refuse(f"{key}: data_files: {JOIN}{ours}=FILE")
        return {}
    out: dict[str, Any] = {"data": files[0] if files else path}
    if config := entry.pop("name", None):
        out["data_config"] = config
    split = entry.pop("split", "train")
    if "[" in str(split):
        draft.check(
            f"split: {split} is a slice, and prefopt takes whole splits: max_examples takes the first rows",
            key,
        )
        split = str(split).partition("[")[0]
    if split != "train":
        out["split"] = split
    entry.pop("ds_type", None)  # told by the file
    if rename := _rows(draft, key, entry):
        out["rename_columns"] = rename
    if entry.pop("trust_remote_code", False):
        draft.check("a data set's code is not run here", key)
    if left := [
        name for name in entry if name not in ("drop_system_message", "train_on_eos", "roles_to_train")
    ]:
        draft.check(
            f"of this source, {', '.join(left)} have no counterpart, and nothing was made of them", key
        )
    return out


def _rows(draft: Draft, key: str, entry: dict[str, Any]) -> dict[str, str]:
    """Columns to rename, by the type of rows; what it reads of an entry is taken out of it."""
    kind = entry.pop("type", None)
    single = draft.given.get("rl") == "kto"
    if isinstance(kind, Mapping):
        return _user_defined(draft, key, dict(kind))
    template, _, rows = str(kind or "").partition(".")
    if template == "chat_template":
        return _conversations(draft, key, entry, rows or "default")
    if not kind or template == "passthrough":
        return {}
    if rows.endswith("_chat") or (rows == "ultra" and not single):
        if single:
            draft.check(
                f"rows of type {kind} hold the answer as the last message of completion; prefopt needs prompt, completion and label: cut "
                "the prompt off into a column of its own",
                key,
            )
        draft.check(f"type: {kind}: {TEMPLATE.format(template=template)}", key)
        return {}
    draft.check(f"type: {kind}: {PLAIN.format(tool=draft.tool)}", key)
    return {"input": "prompt"} if rows == "icr" else {}


TEMPLATE = "the tokenizer's own chat template is used, whether it is {template} or not; another one is saved with the tokenizer"


def _conversations(draft: Draft, key: str, entry: dict[str, Any], rows: str) -> dict[str, str]:
    mapping = entry.pop("message_property_mappings", None) or {
        "role": entry.pop("message_field_role", "role"),
        "content": entry.pop("message_field_content", "content"),
    }
    names = (mapping.get("role", "role"), mapping.get("content", "content"))
    if names not in (("role", "content"), ("from", "value")):
        draft.refuse(
            f"{key}: messages have {names[0]} and {names[1]}; prefopt reads role and content, or from and value: rename them in the data"
        )
    roles = entry.pop("roles", None) or {}
    if odd := [
        name for role, others in roles.items() for name in others if name not in (role, "human", "gpt")
    ]:
        draft.check(f"roles {', '.join(odd)} are not known here: rename them in the data", key)
    if template := entry.pop("chat_template", None):
        draft.check(TEMPLATE.format(template=template), key)
    rename: dict[str, str] = {}
    field = entry.pop("field_messages", "messages" if rows == "default" else None)
    if rows == "default" and field not in PROMPTS:
        rename[field] = "messages"
    for theirs, ours in (("field_chosen", "chosen"), ("field_rejected", "rejected")):
        if (at := entry.pop(theirs, ours)) != ours:
            rename[at] = ours
    return rename


def _user_defined(draft: Draft, key: str, kind: dict[str, Any]) -> dict[str, str]:
    rename = {}
    for name in ("prompt", "chosen", "rejected", "completion", "label", "system"):
        at = kind.pop(f"field_{name}", name)
        plain = kind.pop(f"{name}_format", None)
        if at and at != name:
            rename[at] = name
        if plain and plain != f"{{{name}}}":
            draft.check(
                f"{name}_format: {plain!r}: prefopt takes texts as they are: write the format into the data",
                key,
            )
    if kind:
        draft.check(f"of the type, {', '.join(kind)} have no counterpart", key)
    return rename
