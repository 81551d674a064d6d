"""From rows to examples, of whatever modality: ids, drops with reasons, outcomes, columns that ride along.

What a row holds is said in the modality's folder; everything that is the same for all is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from prefopt.comparisons import Comparison, Example, Item, Outcome, UnusableItem
from prefopt.sources import cells
from prefopt.sources.files import Rows
from prefopt.sources.progress import with_bar
from prefopt.sources.report import DataReport, Dropped, Hint, Origin, count_reasons


@dataclass(frozen=True)
class Comparisons:
    """Examples ready for a likelihood's `encode`, and what became of the other rows.

    Attributes:
        examples: in the order of the rows.
        dropped: rows that could not be used.
        report: counts, lengths and hints.
        origins: by example id, the row it comes from and its scores.
    """

    examples: list[Example]
    dropped: list[Dropped]
    report: DataReport
    origins: Mapping[str, Origin]

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)


class Parsed(NamedTuple):
    """What a row becomes."""

    items: tuple[Item, ...]
    outcome: Outcome
    score_chosen: float | None = None
    score_rejected: float | None = None
    factor: float = 1.0
    """Multiplies the row's weight."""
    branches: Mapping[str, int] = MappingProxyType({})
    """Further items by the names that the objective gives them, behind the pair's two."""


class Collected(NamedTuple):
    """What rows become, before anybody reports on it; `traits` counts what `parse` noticed of the rows kept."""

    examples: list[Example]
    dropped: list[Dropped]
    origins: dict[str, Origin]
    traits: Counter[str]


def collect(
    rows: Rows, parse: Callable[[int, Mapping[str, Any], Counter[str]], Parsed], columns: Sequence[str] = ()
) -> Collected:
    """Make an example of each row that can be used; of whatever modality.

    Args:
        rows: any.
        parse: from a row's number and the row to its items and outcome; raises `UnusableItem` to drop it.
        columns: numeric columns that ride along as `Comparison.columns`.

    Raises:
        ValueError: a column is absent, no row can be used, or what else `parse` finds wrong with all rows.
    """
    for name in columns:
        if name not in rows.columns:
            raise ValueError(
                f"{rows.source} has no column {name!r}{cells.near(name, rows.columns)} "
                f"Its columns are {', '.join(rows.columns)}"
            )
    examples: list[Example] = []
    dropped: list[Dropped] = []
    origins: dict[str, Origin] = {}
    traits: Counter[str] = Counter()
    for number, row, name, state in named(rows):
        try:
            check_id(row, state)
            row_traits: Counter[str] = Counter()
            parsed = parse(number, row, row_traits)
            edge = Comparison(
                first=0,
                second=None if len(parsed.items) == 1 else 1,
                outcome=parsed.outcome,
                weight=cells.as_weight(row.get("weight")) * parsed.factor,
                columns={
                    column: cells.as_number(row.get(column), column, "bad_column") for column in columns
                },
                branches=dict(parsed.branches),
            )
        except UnusableItem as error:
            dropped.append(Dropped(number, name, error.reason, str(error)))
        except RecursionError:
            dropped.append(
                Dropped(number, name, "too_deep", "lists or objects are nested too deeply to be read")
            )
        else:
            traits += row_traits
            traits["repeated_id"] += state == "repeated"
            traits["weighted"] += row.get("weight") not in (None, 1)
            examples.append(Example(name, parsed.items, (edge,)))
            source = row.get("source")
            origins[name] = Origin(
                number, parsed.score_chosen, parsed.score_rejected, source if is_text(source) else None
            )
    if not examples:
        raise ValueError(nothing_usable(rows.source, rows.place, dropped))
    return Collected(examples, dropped, origins, traits)


IdState = Literal["good", "repeated", "bad"]


def named(rows: Rows) -> Iterator[tuple[int, Mapping[str, Any], str, IdState]]:
    """Each row with its number, a name of its own, and what its id was like.

    All randomness derives from names, so they are unique: an id that an earlier row has gets "#2", "#3", ... behind it.
    """
    taken: set[str] = set()
    times: Counter[str] = Counter()
    for number, row in with_bar(rows, "reading rows"):
        given: Any = row.get("id")
        if isinstance(given, Real) and not isinstance(given, bool | int) and float(given).is_integer():
            given = int(float(given))  # numpy's integers, and what pandas makes of a column with a gap
        usable = (
            isinstance(given, str | int) and not isinstance(given, bool) and given != "" and is_text(given)
        )
        base = name = str(given) if usable else f"row-{number}"
        while name in taken:
            times[base] += 1
            name = f"{base}#{times[base] + 1}"
        taken.add(name)
        state: IdState = "bad" if not usable and given is not None else "good" if name == base else "repeated"
        yield number, row, name, state


def is_text(value: Any) -> bool:
    """Whether a value can be written down; half of a surrogate pair cannot."""
    try:
        str(value).encode("utf-8")
    except ValueError:  # half of a surrogate pair; an integer of thousands of digits
        return False
    return True


def check_id(row: Mapping[str, Any], state: IdState) -> None:
    """Raise `UnusableItem` for an id that is none."""
    if state == "bad":
        raise UnusableItem(
            f"id is {cells.shown(row.get('id'))}; needed text or an integer{cells.unless('id')}", "wrong_type"
        )


def judgement(
    row: Mapping[str, Any], traits: Counter[str]
) -> tuple[Outcome, tuple[float | None, float | None]]:
    """Outcome of a pair as its row tells it, and the two sides' scores, chosen first."""
    outcome = cells.as_outcome(row)
    traits["votes"] += row.get("votes") is not None and row.get("target") is None
    soft = [name for name in ("target", "votes") if row.get(name) is not None]
    hard = [name for name in ("label", "is_tie") if row.get(name) is not None]
    traits[f"overruled:{', '.join([*soft[1:], *hard])}:{(soft or [''])[0]}"] += bool(
        soft and len(soft + hard) > 1
    )
    return outcome, (_score(row, "score_chosen"), _score(row, "score_rejected"))


def _score(row: Mapping[str, Any], name: str) -> float | None:
    """A score that only informs: absent or not finite is no score."""
    value = row.get(name)
    if value is None or value != value:
        return None
    return cells.as_number(value, name)


# -- words ---------------------------------------------------------------------------------------------------


def nothing_usable(source: str, place: str, dropped: Sequence[Dropped]) -> str:
    """The sentence for a data set of which no row is left, with the first row of the commonest reasons."""
    firsts: dict[str, Dropped] = {}
    for drop in dropped:
        firsts.setdefault(drop.reason, drop)
    reasons = list(count_reasons(dropped).items())
    told = "; ".join(
        f"{count} {reason} (first: {place} {firsts[reason].row}, {firsts[reason].detail})"
        for reason, count in reasons[:3]
    )
    return f"no row of {source} can be used: {told}{'; ...' * (len(reasons) > 3)}"


def column_hints(rows: Rows, known: Sequence[str], also: Sequence[str]) -> list[Hint]:
    """Columns that nobody reads; a misspelt one must not pass for an absent one.

    Args:
        rows: any.
        known: columns that rows of this kind may have; those absent are what others may be a misspelling of.
        also: further columns that are read or handled elsewhere.
    """
    unread = [name for name in rows.columns if name not in known and name not in also]
    absent = [name for name in known if name not in rows.columns]
    clauses = {name: cells.near(name, absent) for name in unread}
    hints = [
        Hint("warn", f"column {name!r} is not read{clause}") for name, clause in clauses.items() if clause
    ]
    rest = [name for name, clause in clauses.items() if not clause]
    if rest:
        hints.append(Hint("note", f"columns not read: {', '.join(rest)}"))
    return hints


def trait_hints(traits: Counter[str]) -> list[Hint]:
    """What was read in a way that the rows' author may not expect."""
    hints = []
    if n := traits["votes"]:
        hints.append(Hint("note", f"votes of {n} row(s) were taken as counts and normalised to shares"))
    for trait, n in traits.items():
        kind, _, names = trait.partition(":")
        if kind == "overruled" and n:
            less, _, more = names.partition(":")
            hints.append(Hint("note", f"{n} row(s) give {more} and also {less}: {more} was used"))
    if n := traits["weighted"]:
        hints.append(Hint("note", f"{n} row(s) count more or less by their column weight"))
    if n := traits["repeated_id"]:
        hints.append(
            Hint(
                "warn",
                f"{n} row(s) repeat an id of an earlier row: they are called by the id and #2, #3, ...; if the column "
                "names something else: ignore_columns=[id]",
            )
        )
    if n := traits["swapped"]:
        hints.append(Hint("note", f"{n} row(s) were lost by their chosen side: their sides were exchanged"))
    return hints
