"""What becomes of each key of another tool's configuration, while it is translated."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefopt import methods
from prefopt.config import FIELD_NAMES, ConfigError, TrainConfig
from prefopt.config.checking import objective_keys
from prefopt.config.foreign import FOREIGN, SECRET

Fate = Literal["carried over", "renamed", "value changed", "default made explicit", "left out", "to check"]
FATES: tuple[Fate, ...] = (
    "carried over", "renamed", "value changed", "default made explicit", "left out", "to check",
)  # fmt: skip
ABSENT = object()
GIVEN = "{key} is given on the command line"
SECRETS = frozenset({"token", "use_auth_token", "access_token", "hf_token", "api_key", "password", "secret"})
"""Keys within other values that hold secrets."""
SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


@dataclass(frozen=True)
class Line:
    """One line of the account.

    Attributes:
        fate: what became of it.
        origin: keys in the file; empty for a default of the tool.
        given: value in the file, or of the default, as text.
        key: prefopt's key; empty where none was written.
        value: what was written.
        why: the reason, where there is something to say.
    """

    fate: Fate
    origin: str
    given: str
    key: str = ""
    value: Any = None
    why: str = ""


@dataclass
class Draft:
    """A configuration of another tool on its way to prefopt's keys.

    Every key that the file gives is asked for by a translator, or accounted for at the end by `settle`.

    Attributes:
        tool: its name in sentences.
        given: what the file holds.
        overrides: prefopt's keys that are given beside the file: what they say is not asked of it.
        called: the tool's names of arguments that the shared translators ask for by transformers' and TRL's.
        out: prefopt's keys so far.
        lines: the account so far.
        problems: why this cannot be migrated; all of them are told at once.
        same: keys that say nothing that prefopt would not do by itself.
    """

    tool: str
    given: Mapping[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)
    out: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    _read: set[str] = field(default_factory=set)

    def name(self, key: str) -> str:
        """What the tool calls an argument."""
        return self.called.get(key, key)

    def has(self, key: str) -> bool:
        """Whether the file gives a value, other than null."""
        return self.given.get(self.name(key)) is not None

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which is accounted for with that; the default where it is absent or null."""
        name = self.name(key)
        self._read.add(name)
        value = self.given.get(name)
        return default if value is None else number(value)

    def number(self, key: str, default: float, least: float | None = None) -> Any:
        """A number; see `take`.

        Raises:
            ConfigError: it is none, or not above `least`.
        """
        value = self.take(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (least is not None and value <= least)
        ):
            above = "" if least is None else f" above {least:g}"
            raise ConfigError(f"{self.name(key)}: needed a number{above}; given {said('', value)}")
        return value

    def word(self, key: str, default: str) -> str:
        """A name; see `take`.

        Raises:
            ConfigError: it is none.
        """
        value = self.take(key, default)
        if not isinstance(value, str):
            raise ConfigError(f"{self.name(key)}: needed a name such as {default}; given {said('', value)}")
        return value

    def entries(self, key: str) -> list[dict[str, Any]]:
        """Sources of data, mappings each; see `take`.

        Raises:
            ConfigError: it is no list of them.
        """
        value = self.take(key) or []
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise ConfigError(
                f"{self.name(key)}: needed a list of sources, each with a path; given {said('', value)}"
            )
        return [{name: one for name, one in entry.items() if one is not None} for entry in value]

    def mapping(self, key: str) -> dict[str, Any]:
        """Names and values; see `take`.

        Raises:
            ConfigError: it is no mapping.
        """
        value = parsed(self.take(key) or {})
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.name(key)}: needed names and values; given {said('', value)}")
        return dict(value)

    def put(self, key: str, value: Any, *origin: str, why: str = "") -> None:
        """Write a key.

        Args:
            key: prefopt's.
            value: of it.
            origin: keys of the file that it comes from, by the names the translators use; none for a default of the tool.
            why: what there is to say about it.
        """
        names = [self.name(name) for name in origin]
        self._read |= set(names)
        if key in self.overrides:
            self.out[key] = self.overrides[key]
            self.leave(GIVEN.format(key=key), *origin)
            return
        given = [self.given.get(name) for name in names]
        fate: Fate = "value changed"
        if not names:
            fate = "default made explicit"
        elif len(names) == 1 and number(given[0]) == value:
            fate = "carried over" if names[0] == key else "renamed"
        self.out[key] = value
        shown = ", ".join(said(name, one) for name, one in zip(names, given, strict=True)) if names else ""
        self.lines.append(Line(fate, ", ".join(names), shown or said(key, value), key, value, why))

    def carry(self, ours: str, theirs: str, default: Any = ABSENT, why: str = "") -> None:
        """Write a value that means the same here, or the tool's default where that is not prefopt's own.

        Args:
            ours: prefopt's key.
            theirs: the tool's argument, by the name the translators use.
            default: the tool's; without one, nothing is written for files that do not give it.
            why: what there is to say about it.
        """
        value = self.take(theirs, ABSENT)
        if value is ABSENT:
            if default is not ABSENT:
                self.default(ours, default)
        elif value == default and self.usual(ours) in (value, ABSENT):
            self.same.append(self.name(theirs))
        else:
            self.put(ours, value, theirs, why=why)

    def explicit(self, ours: str, theirs: str, default: Any, why: str = "") -> None:
        """Write a hyper-parameter whether it is given or not: tools have one default for all losses, prefopt each method's own."""
        value = self.take(theirs, ABSENT)
        if value is ABSENT:
            self.put(ours, default, why=why or f"{self.tool}'s default")
        else:
            self.put(ours, value, theirs, why=why)

    def default(self, key: str, value: Any, why: str = "") -> None:
        """Write a default of the tool, where prefopt would do something else."""
        if key in FIELD_NAMES and key not in self.out and value != self.usual(key):
            self.put(
                key, value, why=why or f"{self.tool}'s default; prefopt's is {said(key, self.usual(key))}"
            )

    def so_far(self, key: str) -> Any:
        """What a key is by now; None where nothing is said of it."""
        return self.overrides.get(key, self.out.get(key))

    def usual(self, key: str) -> Any:
        """What prefopt does when nothing is said: the method's default, or the schema's."""
        own = methods.defaults(str(self.so_far("method") or ""))
        if key in own:
            return own[key]
        return (
            TrainConfig.model_fields[key].get_default(call_default_factory=True)
            if key in FIELD_NAMES
            else ABSENT
        )

    def takes(self, method: str, key: str) -> bool:
        """Whether a method, or the schema, has a key."""
        return key in FIELD_NAMES or key in objective_keys(method)

    def leave(self, why: str, *keys: str) -> None:
        """Leave keys out, with the reason."""
        for key in keys:
            name = self.name(key)
            self._read.add(name)
            if name in self.given:
                self.lines.append(Line("left out", name, said(name, self.given[name]), why=why))

    def check(self, why: str, *keys: str) -> None:
        """Say loudly that something about the training is, or may be, another than it was."""
        names = [self.name(key) for key in keys]
        self._read |= set(names)
        given = ", ".join(said(name, self.given.get(name)) for name in names)
        self.lines.append(Line("to check", ", ".join(names), given, why=why))

    def refuse(self, why: str, *keys: str) -> None:
        """Note why this cannot be migrated."""
        self._read |= {self.name(key) for key in keys}
        self.problems.append(why)

    def settle(self, defaults: Mapping[str, Any]) -> None:
        """Account for keys that no translator asked for.

        Args:
            defaults: of the tool, for arguments that have no counterpart: as its own dumps hold them.
        """
        told_of = {name for line in self.lines for name in line.origin.split(", ")} | set(self.same)
        for name, value in self.given.items():
            if name in told_of:
                continue
            # a translator looked at it and it changes nothing, or nobody needs to
            if name in self._read or is_off(value) or number(value) == defaults.get(name, ABSENT):
                self.same.append(name)
            elif name in FOREIGN:
                self.leave(FOREIGN[name], name)
            else:
                known = [*FOREIGN, *self._read, *defaults]
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
                self.check(
                    f"prefopt knows no such argument of {self.tool}, and nothing was made of it"
                    + (f"; did you mean {near[0]!r}?" if near else ""),
                    name,
                )
        if self.problems:
            raise ConfigError(told(self.problems))
        own = objective_keys(str(self.out["method"]))
        unknown = self.out.keys() - FIELD_NAMES - set(own) - self.overrides.keys()
        for key in [key for key in self.out if key in unknown]:
            del self.out[key]
            why = f"prefopt has no {key} beside {self.out['method']}, and nothing was made of it"
            self.lines = [
                line if line.key != key else Line("to check", line.origin, line.given, why=why)
                for line in self.lines
            ]

    def of(self, fate: Fate) -> list[Line]:
        """Lines of one fate."""
        return [line for line in self.lines if line.fate == fate]


def told(problems: Iterable[str]) -> str:
    """Why a file cannot be migrated, as one message."""
    found = list(problems)
    if len(found) == 1:
        return f"this cannot be migrated: {found[0]}"
    return "\n".join(["this cannot be migrated:", *(f"  {problem}" for problem in found)])


def is_off(value: Any) -> bool:
    """Whether a value is what tools write for "not used"."""
    return value is None or value is False or value in ("", "no", "none") or value == [] or value == {}


def number(value: Any) -> Any:
    """A number in scientific notation that YAML reads as text, as it does `5e-6`; anything else as it is.

    Example:
        >>> number("5e-6"), number("16"), number("cosine")
        (5e-06, '16', 'cosine')
    """
    return float(value) if isinstance(value, str) and SCIENTIFIC.fullmatch(value) else value


def said(name: str, value: Any) -> str:
    """A value for a table, in one line; secrets are not shown, wherever in it they are."""
    if value and is_secret(name):
        return "(not shown)"
    if value is ABSENT:
        return "none"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = one_line(str(_without_secrets(parsed(value)))).strip()
    return text if len(text) <= 60 else f"{text[:50]}..."


def is_secret(name: str) -> bool:
    """Whether a key holds one."""
    return name in SECRETS or FOREIGN.get(name) == SECRET


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: "(not shown)" if one and is_secret(str(key)) else _without_secrets(one)
            for key, one in value.items()
        }
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value


def parsed(value: Any) -> Any:
    """Names and values that are given as JSON, as on a command line; anything else as it is.

    Example:
        >>> parsed('{"dtype": "bfloat16"}'), parsed("auto")
        ({'dtype': 'bfloat16'}, 'auto')
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def one_line(text: str) -> str:
    """Text without line breaks and other characters that print nothing, which a comment of YAML cannot hold.

    Example:
        >>> one_line("{% if x %}\\n  y")
        '{% if x %}   y'
    """
    return "".join(one if one.isprintable() else " " for one in text)


def as_list(value: Any) -> list[Any]:
    """A list of one or several values, also of text with commas."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]
