"""Reading a report the way a browser would: which elements it has, what they load, what a person sees."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr", "source", "area", "base", "embed", "track", "wbr", "col"}


class Page(HTMLParser):
    """Elements, addresses and visible text; raises on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self._text).append(data)

    @property
    def text(self) -> str:
        """What a person reads, with single spaces."""
        return " ".join(" ".join(self._text).split())

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def addresses(self) -> list[tuple[str, str, str]]:
        """(tag, attribute, address) of everything that could load or lead somewhere."""
        names = (
            "src",
            "href",
            "srcset",
            "action",
            "data",
            "poster",
            "background",
            "xlink:href",
            "formaction",
        )
        return [(tag, name, attrs[name]) for tag, attrs in self.elements for name in names if name in attrs]

    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.elements if "id" in attrs]
