"""The shell of every HTML page of the project: one file, nothing fetched, light and dark, readable on paper.

    >>> from markupsafe import Markup
    >>> from prefopt.report.page import Section, page
    >>> html = page("Two runs", [Section("frontier", "Reward against KL", Markup("<p>...</p>"))])

Templates escape every value that is not `Markup`; a content security policy with the hash of our own script keeps
anything that slipped through (a model can write HTML) from running or loading.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from prefopt.report import format as formats

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Section:
    """A part of a page with an entry in its table of contents."""

    id: str
    title: str
    body: Markup
    nav: str = ""
    """Short name for the table of contents; the title where empty."""


KIT = "prefopt.report"


@functools.cache
def _environment(package: str) -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, Undefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, KIT))]),
        autoescape=True,  # by name would miss files that end in .j2
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def forgiving(show: Callable[..., str]) -> Callable[..., str]:
        # an entry that a record lacks is shown as missing, like None
        return lambda value, *args: show(None if isinstance(value, Undefined) else value, *args)

    shows = (
        formats.number,
        formats.short,
        formats.percent,
        formats.si,
        formats.data_size,
        formats.duration,
        formats.moment,
        formats.plain,
    )
    environment.filters |= {show.__name__: forgiving(show) for show in shows}
    return environment


def render(template: str, package: str = KIT, /, **values: Any) -> Markup:
    """A template, filled in and escaped.

    Args:
        template: its name in the folder `templates`, without `.html.j2`.
        package: what that folder is in; its templates may include those of this one.
        values: what it says.
    """
    return Markup(_environment(package).get_template(f"{template}.html.j2").render(**values))


def figure(title: str, chart: Markup, look_for: str = "", trouble: str = "") -> Markup:
    """A chart with its heading and, in plain words, what to look for and what trouble looks like."""
    return render("figure", title=title, chart=chart, look_for=look_for, trouble=trouble)


def page(
    title: str,
    sections: Sequence[Section],
    *,
    header: Markup | None = None,
    kicker: str = "",
    footer: str = "",
    own_style: str = "",
    own_script: str = "",
) -> str:
    """A complete HTML document.

    Args:
        title: of the document and its main heading.
        sections: in order; each gets a heading and an entry in the table of contents.
        header: what stands between the main heading and the first section.
        kicker: a few words above the main heading.
        footer: a few words at the end.
        own_style: style sheet of what only this page has, behind that of all pages.
        own_script: script of what only this page has, behind that of all pages; the policy admits both.

    Returns:
        The document as text.
    """
    from importlib.resources import files

    templates = files(KIT) / "templates"
    style, script = ((templates / name).read_text("utf-8") for name in ("style.css", "script.js"))
    script += own_script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        render(
            "page", title=title, sections=sections, header=header or Markup(""), kicker=kicker, footer=footer,
            style=Markup(style + own_style), script=Markup(script), script_digest=digest,
        )
    )  # fmt: skip
