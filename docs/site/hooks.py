"""What the documentation site adds to mkdocs: links that leave docs/, GitHub's anchors, and the list of methods.

On GitHub a page may link to any file of the repository. In the site, a linked file outside of docs/ becomes a page of its own:
Markdown as it is, other text as a listing. The first page of the repository is the site's home.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE_OR_LINK = re.compile(r"```.*?```|`[^`\n]*`|(?<=\]\()([^)\s#:]+)(?=[#)])", re.S)
"""Code is matched so that links in it are passed over."""
METHODS = "Methods"
"""The entry of the navigation under which every method's page is put."""


def on_config(config: MkDocsConfig) -> None:
    """Name headings as GitHub does, and put a page for each method into the navigation, by its name."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    pages = [
        f"methods/{page.name}" for page in sorted((DOCS / "methods").glob("*.md")) if page.stem != "README"
    ]
    for entry in config.nav or []:
        if METHODS in entry:
            entry[METHODS] += [{page.removeprefix("methods/").removesuffix(".md"): page} for page in pages]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what pages link to outside of docs/, and what is linked to from there."""
    waiting = [file for file in files if file.src_uri.endswith(".md")]
    while waiting:
        file = waiting.pop()
        for path in outside(place(file), Path(file.abs_src_path or "").read_text(encoding="utf-8")):
            if files.get_file_from_path(address(path)) is None:
                files.append(made(path, config))
                waiting += [files.get_file_from_path(address(path))] if path.suffix == ".md" else []


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links from, to and between files outside of docs/ at their pages."""
    origin = place(page.file)

    def pointed(link: re.Match[str]) -> str:
        target = resolved(origin, link[1]) if link[1] else None
        if target is None or (target.is_relative_to(DOCS) and origin.is_relative_to(DOCS)):
            return link[0]
        return posixpath.relpath(address(target), posixpath.dirname(page.file.src_uri) or ".")

    return CODE_OR_LINK.sub(pointed, markdown)


def outside(origin: Path, markdown: str) -> list[Path]:
    """Files outside of docs/ that a page links to, but for the first page of the repository."""
    targets = [resolved(origin, link[1]) for link in CODE_OR_LINK.finditer(markdown) if link[1]]
    return [target for target in targets if target != ROOT / "README.md" and not target.is_relative_to(DOCS)]


def resolved(origin: Path, link: str) -> Path:
    """The file that a link leads to; a folder's is its README, or that of the nearest folder above it which has one."""
    target = Path(posixpath.normpath(origin.parent / link))
    if not target.is_dir():
        return target
    while not (target / "README.md").exists():
        target = target.parent
    return target / "README.md"


def place(file: File) -> Path:
    """Where a page comes from; that of a listing is the file listed."""
    return (
        DOCS / file.src_uri
        if (DOCS / file.src_uri).exists()
        else ROOT / file.src_uri.removesuffix(".listing.md")
    )


def address(path: Path) -> str:
    """A file's name among those of the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix()
    return name if path.suffix == ".md" else f"{name}.listing.md"


def made(path: Path, config: MkDocsConfig) -> File:
    """The site's file for one outside of docs/."""
    if not path.exists():
        raise PluginError(f"a page links to {path.relative_to(ROOT)}, which is not there")
    if path.suffix == ".md":
        return File(address(path), str(ROOT), config.site_dir, config.use_directory_urls)
    name, language = path.relative_to(ROOT), path.suffix.removeprefix(".")
    text = f"# {name}\n\n```{language}\n{path.read_text(encoding='utf-8')}```\n"
    return File.generated(config, address(path), content=text, inclusion=InclusionLevel.NOT_IN_NAV)
