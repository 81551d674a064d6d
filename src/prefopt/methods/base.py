"""What a method is: an objective by name, the defaults of its paper, and what a user should know before choosing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A citation."""

    title: str
    authors: str
    year: int
    arxiv: str
    venue: str = ""

    @property
    def url(self) -> str:
        """Address of the abstract."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography."""
        first = self.authors.split(",")[0].split()[-1].lower()
        key = f"{first}{self.year}{self.title.split()[0].lower().strip(':')}"
        return (
            f"@article{{{key},\n  title = {{{self.title}}},\n  author = {{{' and '.join(self.authors.split(', '))}}},\n"
            f"  journal = {{arXiv preprint arXiv:{self.arxiv}}},\n  year = {{{self.year}}}\n}}"
        )


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of the library; each lives in a file of this folder, as `METHOD`.

    Attributes:
        name: what users type; also the objective's registry name unless `objective` differs.
        title: the name in words.
        paper: where it comes from.
        summary: one sentence: the idea.
        use_when: one or two sentences for somebody choosing.
        failure_signs: what a run that goes wrong looks like, and the remedy.
        defaults: configuration keys (training keys and hyper-parameters) that the paper or its authors' code use,
            applied beneath whatever the user gives.
        papers_config: values the paper reports that are not defaults here, in words or numbers, by setting.
    """

    name: str
    title: str
    paper: Paper
    summary: str
    use_when: str
    failure_signs: str
    objective: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    papers_config: Mapping[str, str] = field(default_factory=dict)

    @property
    def objective_name(self) -> str:
        """Name in the objective registry."""
        return self.objective or self.name
