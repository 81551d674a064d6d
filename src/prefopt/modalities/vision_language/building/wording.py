"""What models are asked, as templates (jinja) that a user can replace.

Of `prefopt build contrast`:

caption.jinja    beside a picture; knows nothing
claims.jinja     knows prompt, caption, answers
compose.jinja    knows prompt, claims, answers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from prefopt.modalities.vision_language.building.modes import digest_of
from prefopt.sources.cells import near


@dataclass(frozen=True)
class Template:
    """What one template is told.

    Attributes:
        known: names that it may use.
        needed: those without which it cannot do its work.
    """

    known: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()


def told(known: str = "", needed: str = "") -> Template:
    """A template that is told these words, and needs some of them.

    Example:
        >>> told("prompt caption", "caption").needed
        frozenset({'caption'})
    """
    return Template(frozenset(known.split()), frozenset(needed.split()))


@dataclass(frozen=True)
class Templates:
    """The templates of one builder.

    Attributes:
        package: that holds them as NAME.jinja, in folder `folder`.
        of: by name.
        folder: within the package.
    """

    package: str
    of: Mapping[str, Template]
    folder: str = "templates"


CONTRAST = Templates(
    "prefopt.modalities.vision_language.building",
    {
        "caption": told(),
        "claims": told("prompt caption answers", "caption answers"),
        "compose": told("prompt claims answers", "claims"),
    },
)


@dataclass(frozen=True)
class Wording:
    """Templates as texts.

    Attributes:
        texts: by name.
        templates: what each is told.

    Raises:
        ValueError: a template that cannot be read, names what it is not told, or leaves out what matters.
    """

    texts: dict[str, str]
    templates: Templates = CONTRAST

    def __post_init__(self) -> None:
        from jinja2 import TemplateSyntaxError, meta

        for name, text in self.texts.items():
            try:
                used = meta.find_undeclared_variables(_environment().parse(text))
            except TemplateSyntaxError as error:
                raise ValueError(f"{name}.jinja, line {error.lineno}: {error.message}") from None
            known, needed = self.templates.of[name].known, self.templates.of[name].needed
            if unknown := sorted(used - known):
                raise ValueError(
                    f"{name}.jinja uses {', '.join(unknown)}{near(unknown[0], known)}, of which it is told nothing; it knows "
                    f"{', '.join(sorted(known)) or 'nothing'}"
                )
            if lacking := sorted(needed - used):
                raise ValueError(
                    f"{name}.jinja leaves out {', '.join(lacking)}, without which it makes no sense"
                )

    def of(self, name: str, **told: Any) -> str:
        """A template filled in."""
        return _environment().from_string(self.texts[name]).render(told).strip()

    @property
    def digest(self) -> str:
        """Names them all."""
        return digest_of(*(self.texts[name] for name in sorted(self.texts)))

    @property
    def digests(self) -> dict[str, str]:
        """Names each."""
        return {name: digest_of(text) for name, text in sorted(self.texts.items())}


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


def wording(folder: Path | None = None, templates: Templates = CONTRAST) -> Wording:
    """The templates of the package, some of them replaced.

    Args:
        folder: with one or more of the templates as NAME.jinja; None: none is replaced.
        templates: which there are.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds none of them, or one that cannot be used.

    Example:
        >>> sorted(wording().texts)
        ['caption', 'claims', 'compose']
    """
    own = resources.files(templates.package).joinpath(templates.folder)
    texts = {name: own.joinpath(f"{name}.jinja").read_text("utf-8") for name in templates.of}
    if folder is not None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}, which --prompts names")
        found = {name: folder / f"{name}.jinja" for name in templates.of}
        given = {name: path.read_text("utf-8") for name, path in found.items() if path.is_file()}
        if not given:
            raise ValueError(f"{folder} holds none of {', '.join(f'{name}.jinja' for name in templates.of)}")
        texts |= given
    return Wording(texts, templates)
