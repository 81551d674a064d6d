"""The file that `prefopt migrate` writes: a line a key, with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefopt.migration.draft import Line, one_line


def written(
    config: Mapping[str, Any], lines: Sequence[Line], tool: str, source: str, given: Sequence[str] = ()
) -> str:
    """YAML with comments.

    Args:
        config: prefopt's keys.
        lines: what became of the other tool's.
        tool: its name.
        source: name of its file.
        given: keys that were given on the command line.
    """
    origin = {line.key: line for line in lines if line.key}
    out = [_comment(f"Written by `prefopt migrate` from {source}, a configuration of {tool}.")]
    out += [
        _comment(f"To check: {f'{line.origin}: ' if line.origin else ''}{line.why}")
        for line in lines
        if line.fate == "to check"
    ]
    out.append("")
    for key, value in config.items():
        text, note = _yaml(key, value), _note(key, origin.get(key), tool, key in given)
        out.append(f"{text}  {_comment(note)}" if note else text)
    left = [line for line in lines if line.fate == "left out"]
    if left:
        out += ["", "# Left out:"]
        out += [_comment(f"  {line.origin}: {line.given} -- {line.why}") for line in left]
    return "\n".join(out) + "\n"


def _comment(text: str) -> str:
    """One line whatever the text holds: what stood on a second one would be read as a key."""
    return f"# {one_line(text)}"


def _yaml(key: str, value: Any) -> str:
    import yaml

    if isinstance(value, list | dict):
        inner = yaml.safe_dump(
            value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
        )
        return f"{key}: {inner.rstrip()}"
    return str(yaml.safe_dump({key: value}, width=10**6, allow_unicode=True)).rstrip("\n")


def _note(key: str, line: Line | None, tool: str, given: bool) -> str:
    if given:
        return "given on the command line"
    if line is None or line.fate == "carried over":
        return ""
    if line.fate == "default made explicit":
        return line.why or f"{tool}'s default"
    shown = "" if line.given.startswith(("{", "[{")) else f": {line.given}"
    return f"{tool}'s {line.origin}{shown}" + (f" ({line.why})" if line.why else "")
