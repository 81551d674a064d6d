"""What page and card of a run say where modalities differ: an `Account`, which each modality has in its folder.

`Account` itself fits any run: it knows losses, accuracies and rewards, and nothing of what a sample looks like. A modality
overrides what it knows better, as `ACCOUNT` of its module `report`; that module loads no torch, since a report is made of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from markupsafe import Markup

from prefopt import modalities
from prefopt.config import FIELD_NAMES, applying
from prefopt.report.curves import (
    ACCURACY,
    DISPLACEMENT,
    LEARNING,
    LOSS,
    MARGIN,
    REWARDS,
    STILL_GOOD,
    TIES,
    Curve,
    Groups,
    one,
    with_smoothness,
)
from prefopt.report.facts import Figure, Finding
from prefopt.report.format import number, percent
from prefopt.report.load import Run, read_record, read_run
from prefopt.report.page import Section
from prefopt.report.samples import samples
from prefopt.report.verdict import first_sides

Measure = tuple[str, str, str, Callable[[Any], str]]
"""(metric, split, what the card's table calls it, how it is written)."""

GENERIC: Groups = with_smoothness(
    (LEARNING, "", [LOSS, ACCURACY, MARGIN, REWARDS, TIES]),
    (STILL_GOOD, "", [Curve(title="Reward of samples", metrics=one("reward")), DISPLACEMENT]),
)


EMPTY = Markup("")


@dataclass(frozen=True)
class DataFacts:
    """What the data section says of the samples themselves."""

    body: Markup = EMPTY
    """Above the table of lengths."""
    rows: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Further lines of that table: (what and its unit, values by min, median, p95, max, mean)."""
    heading: str = ""
    """Of the table; empty: the lengths' unit."""


@dataclass(frozen=True)
class Loading:
    """How the trained model is loaded without prefopt."""

    library: str
    """Name on the hub: transformers, peft, diffusers."""
    code: str
    """Python that loads and uses it."""
    page: str
    """A sentence for the page."""
    card: str
    """The same for the card."""
    adapter: bool = False
    """Whether it is an adapter on another model."""


class Drawn(NamedTuple):
    """Paths within the run folder of what a card shows of one prompt."""

    prompt: str
    before: str
    after: str
    given: str = ""
    """What it was drawn under, where that is a picture."""


@dataclass(frozen=True)
class CardFront:
    """What the card's front matter says for the hub."""

    pipeline_tag: str = ""
    tags: Sequence[str] = field(default_factory=list)


class Account:
    """The account of a run of any modality; each has one that says more."""

    samples_word: ClassVar[str] = "samples"
    """What the policy makes, many of them: answers, images."""
    samples_title: ClassVar[str] = "Samples"
    """Heading of the section that shows them."""
    samples_first: ClassVar[bool] = False
    """Whether they stand above the curves."""
    giveaway: ClassVar[str] = "something that has nothing to do with quality"
    """What may tell winners from losers too easily."""
    noisy_loss: ClassVar[bool] = False
    """Whether the training loss is mostly noise, so that only held-out values tell anything."""
    margin_unit: ClassVar[str] = ""
    """Of reward margins; empty: as the run recorded it."""
    pictures_told: ClassVar[str] = "Images of the same prompts from the same noise"
    """What a card says of `pictures`."""
    records: ClassVar[Mapping[str, str]] = {}
    """Files record/NAME.json that only its runs have, and what they hold."""
    hyper_parameters: ClassVar[Sequence[str]] = ()
    """Keys that its card shows beside those of all runs."""

    def recognises(self, run: Run) -> bool:
        """Whether a folder whose manifest is gone looks like one of its runs."""
        return False

    def prepared(self, run: Run) -> Run:
        """The run without what means nothing here, and with the names that its readers know."""
        return run

    # -- the page ---------------------------------------------------------------------------------------------

    def curves(self, run: Run) -> Groups:
        """Which curves are drawn, under which headings."""
        return GENERIC

    def samples(self, run: Run) -> Markup:
        """The samples on fixed conditions, before and after; empty where nothing is to be shown."""
        return samples(run, self.samples_word)

    def first_pair(self, run: Run) -> Section:
        """The first example as the model sees it; a section without a body is left out."""
        return first_sides(run)

    def own_sections(self, run: Run) -> list[Section]:
        """Sections that only its runs have, shown behind the samples or the margins."""
        return []

    def own_style(self) -> str:
        """Style sheet of what only its pages have."""
        return ""

    def own_script(self) -> str:
        """Script of what only its pages have; everything is on the page without it."""
        return ""

    def data_facts(self, run: Run) -> DataFacts:
        """What the data section adds."""
        return DataFacts()

    # -- the run at a glance ----------------------------------------------------------------------------------

    def figures(self, run: Run) -> list[Figure]:
        """Key figures beside accuracy, reward and time."""
        return []

    def reward_of_samples(self, run: Run) -> tuple[str, str]:
        """What the reward of samples is called, and where it comes from."""
        return "Reward of samples", "score of the policy's own samples"

    def claim(self, run: Run) -> str:
        """What accuracy says, as the beginning of a sentence."""
        return "The policy ranks the better side higher"

    def sentence(self, run: Run) -> str:
        """A sentence of the summary, behind accuracy."""
        return ""

    def quality(self, run: Run) -> list[Finding]:
        """Findings about the model rather than about the course of training."""
        return []

    # -- the card ---------------------------------------------------------------------------------------------

    def loading(self, run: Run) -> Loading:
        """How to load the trained model."""
        name = json.dumps(str(run.of("manifest", "modality") or ""))
        code = [
            "from pathlib import Path",
            "",
            "from prefopt.modalities import find",
            "",
            f'model = find({name}).part("trained").load(Path({json.dumps(run.folder.resolve().name)}))',
        ]
        return Loading("prefopt", "\n".join(code), "It loads with prefopt.", "It loads with prefopt.")

    def has_model(self, run: Run) -> bool:
        """Whether the run has left weights."""
        return any((run.folder / "model").glob("**/*.safetensors"))

    def front(self, run: Run) -> CardFront:
        """Tags for the hub."""
        return CardFront()

    def data_rows(self, run: Run) -> list[tuple[str, Any]]:
        """Lines that the card's table of data adds."""
        return []

    def measures(self, run: Run, split: str, place: str) -> list[Measure]:
        """Lines of the card's table of results, behind accuracy.

        Args:
            run: of the card.
            split: by which the run is judged.
            place: what that is in a word: held-out, training, collected.
        """
        return [
            ("reward", "eval", "Reward of samples", number),
            ("loss", split, f"Loss, {place}", number),
            ("rewards/margins", split, f"Reward margin, {place}", number),
            ("displacement", split, "Displacement (share of chosen sides less likely than under the reference)", percent),
        ]  # fmt: skip

    def pictures(self, run: Run) -> list[Drawn]:
        """Samples that a card can show."""
        return []


def read(run_dir: str | Path) -> tuple[Run, Account]:
    """A run folder and the account of its modality, by the name that its manifest holds.

    Raises:
        FileNotFoundError: `run_dir` is not a folder.
    """
    run = read_run(run_dir)
    account = account_of(run)
    others = {
        name: read_record(run.folder, name, what, run.missing)
        for name, what in account.records.items()
        if (run.folder / "record" / f"{name}.json").exists()
    }
    return account.prepared(replace(run, others=others)), account


def account_of(run: Run) -> Account:
    """The account of the run's modality; of one that is not installed here, or broken, the account that fits any."""
    modality = modality_of(run)
    if modality is not None:
        with modalities.skipped_if_broken(modality.package):
            return account_in(modality)
    return Account()


def modality_of(run: Run) -> modalities.Modality | None:
    """The run's modality, by its name in the manifest or else by the looks of the folder; None if it is not installed."""
    named = run.of("manifest", "modality")
    if isinstance(named, str):
        return modalities.all_modalities().get(named)
    return modalities.first(lambda modality: account_in(modality).recognises(run))


def idle_keys(run: Run) -> frozenset[str]:
    """Keys of the configuration that mean nothing to the run's model, and are not shown."""
    modality = modality_of(run)
    return frozenset() if modality is None else FIELD_NAMES - applying(None, modality.traits)


def account_in(modality: modalities.Modality) -> Account:
    """What the folder of a modality holds."""
    account: Account = modality.part("report").ACCOUNT
    return account
