"""What a method is: an objective by name, the defaults of its paper, and what a user should know before choosing it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

STAGE_TRAITS: Mapping[str, frozenset[str]] = {
    "": frozenset(),
    "self": frozenset({"stages", "rounds"}),
    "judged": frozenset({"stages", "rounds", "judged"}),
    "oracle": frozenset({"stages", "split", "oracle"}),
    "twice": frozenset({"stages", "twice"}),
}


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A citation; `arxiv` or, where there is none, `openreview` is the number that the address ends in."""

    title: str
    authors: str
    year: int
    arxiv: str = ""
    openreview: str = ""
    venue: str = ""

    @property
    def url(self) -> str:
        """Address of the abstract."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://openreview.net/forum?id={self.openreview}"

    @property
    def identifier(self) -> str:
        """Short name of the address, for a table or the text of a link."""
        return self.arxiv or "OpenReview"

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography."""
        first = self.authors.split(",")[0].split()[-1].lower()
        word = re.sub(r"[^\w'-]", "", self.title.split()[0].lower())  # a key holds no + and no colon
        key = f"{first}{self.year}{word}"
        journal = f"arXiv preprint arXiv:{self.arxiv}" if self.arxiv else f"{self.venue}, {self.url}"
        return (
            f"@article{{{key},\n  title = {{{self.title}}},\n  author = {{{' and '.join(self.authors.split(', '))}}},\n"
            f"  journal = {{{journal}}},\n  year = {{{self.year}}}\n}}"
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
        modality: the trait that a model must have (`Modality.traits`). "any" where the objective reads log-ratios alone,
            which every modality has; "text" where it reads tokens, lengths or the scale of a text's log-probability;
            "image" where it reads denoising errors, "text_to_image" where it draws or judges images of prompts alone,
            "candidates" where it draws whole samples while training. It says nothing about rows.
        samples: what the method draws while training and compares: candidates of a reverse step ("steps"), or whole
            "trajectories", and its rows are prompts then; or losers for winners of the data ("semi_online"). Rows are
            comparisons otherwise.
        stages: how the method's several runs follow each other: "rounds" of training on answers that the policy wrote,
            labelled by itself ("self") or by a judge ("judged"); "oracle": a gradient on clear pairs, then a comparison
            oracle; "twice": one loss on one data set and then on another, where both are given. "" for methods of one run.
        opponent: who answers each prompt of a round beside the policy: the "reference", or the geometric "mixture" of both;
            "" where all answers are the policy's own. Such methods begin without labelled pairs.
        likelihood: how items are scored, where it is not the modality's usual way.
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
    modality: str = "text"
    samples: Literal["", "steps", "trajectories", "semi_online"] = ""
    stages: Literal["", "self", "judged", "oracle", "twice"] = ""
    opponent: Literal["", "mixture", "reference"] = ""
    likelihood: Literal["", "transition", "guided", "reward"] = ""
    objective: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    papers_config: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> Literal["comparisons", "prompts"]:
        """What the method is trained on."""
        return "prompts" if self.samples in ("steps", "trajectories") else "comparisons"

    @property
    def draws_losers(self) -> bool:
        """Whether rows need no loser, since it is drawn."""
        return self.samples == "semi_online"

    @property
    def objective_name(self) -> str:
        """Name in the objective registry."""
        return self.objective or self.name

    @property
    def traits(self) -> frozenset[str]:
        """What configuration keys ask for, beside the traits of a model.

        Its name, for keys of one method alone; `samples`, and `steps` or `trajectories`, or `semi_online` alone; how items are scored:
            `usual_scores`, `transition`, `guided` or `reward`; `stages`, and of them `rounds`, `judged`, `split`, `oracle`, `twice`.

        Example:
            >>> from prefopt import methods
            >>> sorted(methods.find("lpo").traits)
            ['lpo', 'samples', 'steps', 'transition']
        """
        samples: set[str] = {self.samples} if self.samples else set()
        samples |= {"samples"} if self.rows == "prompts" else set()
        return frozenset({self.name, self.likelihood or "usual_scores", *samples}) | STAGE_TRAITS[self.stages]
