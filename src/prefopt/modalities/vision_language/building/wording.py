"""What captioner and rewriter are asked, as templates (jinja) that a user can replace.

caption.jinja    beside a picture; knows nothing
claims.jinja     knows prompt, caption, answers
compose.jinja    knows prompt, claims, answers
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from prefopt.modalities.vision_language.building.modes import digest_of
from prefopt.sources.cells import near

KNOWN = {
    "caption": frozenset[str](),
    "claims": frozenset({"prompt", "caption", "answers"}),
    "compose": frozenset({"prompt", "claims", "answers"}),
}
"""Templates, and what each is told."""
NEEDED = {
    "caption": frozenset[str](),
    "claims": frozenset({"caption", "answers"}),
    "compose": frozenset({"claims"}),
}
"""Without which it cannot do its work."""


@dataclass(frozen=True)
class Wording:
    """The three templates.

    Attributes:
        texts: by name.

    Raises:
        ValueError: a template that cannot be read, names what it is not told, or leaves out what matters.
    """

    texts: dict[str, str]

    def __post_init__(self) -> None:
        from jinja2 import TemplateSyntaxError, meta

        for name, text in self.texts.items():
            try:
                used = meta.find_undeclared_variables(_environment().parse(text))
            except TemplateSyntaxError as error:
                raise ValueError(f"{name}.jinja, line {error.lineno}: {error.message}") from None
            if unknown := sorted(used - KNOWN[name]):
                raise ValueError(
                    f"{name}.jinja uses {', '.join(unknown)}{near(unknown[0], KNOWN[name])}, of which it is told nothing; it knows "
                    f"{', '.join(sorted(KNOWN[name])) or 'nothing'}"
                )
            if lacking := sorted(NEEDED[name] - used):
                raise ValueError(
                    f"{name}.jinja leaves out {', '.join(lacking)}, without which it makes no sense"
                )

    def of(self, name: str, **told: Any) -> str:
        """A template filled in."""
        return _environment().from_string(self.texts[name]).render(told).strip()

    @property
    def digest(self) -> str:
        """Names all three."""
        return digest_of(*(self.texts[name] for name in sorted(self.texts)))


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


def wording(folder: Path | None = None) -> Wording:
    """The templates of the package, some of them replaced.

    Args:
        folder: with one or more of caption.jinja, claims.jinja and compose.jinja; None: none is replaced.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds none of them, or one that cannot be used.

    Example:
        >>> sorted(wording().texts)
        ['caption', 'claims', 'compose']
    """
    own = resources.files("prefopt.modalities.vision_language.building").joinpath("templates")
    texts = {name: own.joinpath(f"{name}.jinja").read_text("utf-8") for name in KNOWN}
    if folder is not None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}, which --prompts names")
        found = {name: folder / f"{name}.jinja" for name in KNOWN}
        given = {name: path.read_text("utf-8") for name, path in found.items() if path.is_file()}
        if not given:
            raise ValueError(f"{folder} holds none of {', '.join(f'{name}.jinja' for name in KNOWN)}")
        texts |= given
    return Wording(texts)
