"""Rows of text comparisons, as `prefopt.comparisons.Example`s.

    prompt, chosen, rejected      a pair; strings or message lists; without `prompt`, the shared start is the prompt
    prompt, completion, label     a single sample, desirable (true) or not (false)
    reference                     of a pair, a third answer, for objectives that read one (`tpo`)

    chosen_ended, rejected_ended, completion_ended    false: that text was cut when it was sampled, so no end is put behind it

The prompt may also stand in the columns of other tools' layouts (`layouts.py`). Optional for pairs: `label` "win" | "tie" | "lose", `is_tie`, `votes` [win, lose, tie] counts, `target` shares; for
both: `id`, `weight`, `tools`, `chat_template_kwargs`. Columns are TRL's where TRL has them.

A row that cannot be used is dropped with a reason and listed. What is wrong with *all* rows is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from prefopt.comparisons import LOSE, WIN, Example, Item, UnusableItem
from prefopt.modalities.text.ended import PAIRED, UNPAIRED, is_whole, told_of
from prefopt.modalities.text.further import behind, check_further, further_answers
from prefopt.modalities.text.prompt_columns import refuse_repeated_prompts, refuse_unread_prompts
from prefopt.objectives import Branch
from prefopt.sources import cells
from prefopt.sources.collecting import Comparisons, Parsed, collect, column_hints, judgement, trait_hints
from prefopt.sources.columns import AS_THEY_ARE, ColumnsAs
from prefopt.sources.files import Rows, load_rows
from prefopt.sources.hints import describe
from prefopt.sources.layouts import PromptColumns, prompt_columns
from prefopt.sources.report import Hint

Schema = Literal["paired", "unpaired"]

_SHARED = ("prompt", "tools", "chat_template_kwargs", "id", "weight", "source", "rule")
COLUMNS: dict[Schema, tuple[str, ...]] = {
    "paired": (
        *_SHARED,
        *("chosen", "rejected", "label", "is_tie", "votes", "target", "score_chosen", "score_rejected"),
    ),
    "unpaired": (*_SHARED, "completion", "label"),
}
MEDIA_COLUMNS = frozenset({"jpg_0", "jpg_1", "chosen_condition", "rejected_condition"}) | {
    f"{side}{name}"
    for side in ("", "chosen_", "rejected_")
    for name in ("image", "images", "video", "videos", "audio", "audios", "motion")
}


def load_comparisons(
    source: str | Path | list[dict[str, Any]] | Any,
    split: str = "train",
    config_name: str | None = None,
    columns: Sequence[str] = (),
    optional: Iterable[str] = (),
    columns_as: ColumnsAs = AS_THEY_ARE,
    branches: Mapping[str, Branch] = MappingProxyType({}),
) -> Comparisons:
    """Read a data set of text comparisons.

    Args:
        source: file, folder, hub id, rows or `datasets.Dataset`; see `files.load_rows`.
        split: split to take.
        config_name: configuration of a hub data set.
        columns: numeric columns of the rows that ride along to the objective as `Comparison.columns`.
        optional: further such columns, read where the data has them; `Objective.columns` names those of an objective.
        columns_as: columns to leave out or to call otherwise.
        branches: `Objective.branches`: those of `FURTHER` answers become items of their own.

    Returns:
        Examples, dropped rows and report.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, needed columns are missing, ids repeat, or no row can be used.

    Example:
        >>> rows = [{"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3", "label": "win"}]
        >>> load_comparisons(rows).report.comparisons["wins"]
        1
    """
    rows = columns_as.apply(load_rows(source, split, config_name))
    return to_comparisons(rows, columns, optional, branches)


def to_comparisons(
    rows: Rows,
    columns: Sequence[str] = (),
    optional: Iterable[str] = (),
    branches: Mapping[str, Branch] = MappingProxyType({}),
) -> Comparisons:
    """Convert rows to examples; see `load_comparisons`."""
    optional = tuple(optional)
    columns = (*columns, *(name for name in optional if name in rows.columns and name not in columns))
    schema = detect_schema(rows)
    prompts = prompt_columns(rows.columns)
    further = further_answers(branches) if schema == "paired" else {}
    check_further(rows, further)
    ends = PAIRED if schema == "paired" else UNPAIRED
    parse: Callable[..., Parsed] = partial(paired, further=further) if schema == "paired" else unpaired
    arrow = rows.kind in ("datasets", "parquet")
    media = [name for name in rows.columns if name in MEDIA_COLUMNS]

    def parse_text(number: int, row: Mapping[str, Any], traits: Counter[str]) -> Parsed:
        if filled := [name for name in media if row.get(name) not in (None, [], "")]:
            raise ValueError(_text_only(rows, number, f"column {filled[0]!r} is filled"))
        try:
            return parse(row, prompts, arrow, traits, ends=ends)
        except cells.NotText as error:
            raise ValueError(_text_only(rows, number, str(error))) from None

    examples, dropped, origins, traits = collect(rows, parse_text, columns)
    known = (*COLUMNS[schema], *ends.values(), *prompts.names, *optional, *further.values())
    unread = column_hints(rows, known, (*columns, *media))
    refuse_repeated_prompts(rows, traits["prompt_repeated"], len(examples))
    if traits["implicit_text"]:
        shared = [example.items[0].condition["prompt"] for example in examples]
        refuse_unread_prompts(
            rows, [name for name in rows.columns if name not in (*known, *columns, *media)], shared
        )
    absent = sum(drop.reason == "no_prompt" for drop in dropped)
    if 2 * absent >= len(rows):  # what the others share is chance then
        raise ValueError(f"{absent} of {len(rows)} rows of {rows.source} have no prompt: {prompts.missing}")
    notes = [
        *([Hint("note", prompts.note)] if prompts.note else []),
        *unread,
        *trait_hints(traits),
        *text_hints(traits),
    ]
    return Comparisons(
        examples=examples,
        dropped=dropped,
        report=describe(rows.source, len(rows), examples, dropped, origins, notes),
        origins=origins,
    )


def detect_schema(rows: Rows) -> Schema:
    """Which of the two kinds of row these columns make.

    Raises:
        ValueError: neither; says which columns are there, which are needed, and the nearest names.
    """
    columns = rows.columns
    if "chosen" in columns and "rejected" in columns:
        return "paired"
    if {"completion", "label"} <= set(columns) and prompt_columns(columns).parts:
        return "unpaired"
    if "candidates" in columns:
        raise ValueError(
            f"{rows.source} holds candidates, not comparisons: make pairs of them first, for example with "
            "`prefopt build extremes-and-closest`"
        )
    media = [name for name in columns if name in MEDIA_COLUMNS]
    if media:
        raise ValueError(_text_only(rows, rows.numbers[0], f"columns {', '.join(media)}"))
    needed: tuple[str, ...] = ("prompt", "chosen", "rejected")
    if "completion" in columns:
        needed = ("prompt", "completion", "label")
    absent = [name for name in needed if name not in columns]
    rest = [name for name in columns if name not in COLUMNS["paired"]]
    hints = cells.nearest(absent, rest)
    raise ValueError(
        f"{rows.source} has the columns {', '.join(columns)}; needed chosen and rejected, with prompt, for pairs, or "
        f"prompt, completion and label for single samples. Missing: {', '.join(absent)}{hints}"
        f"{'' if hints else '. Name the columns that hold them, for example rename_columns={query: prompt, better: chosen}'}"
    )


CUT_OFF = (
    ", which would be trained on: cut them from the completions, or leave the column prompt out "
    "(ignore_columns=[prompt]): then the messages that both sides share are the prompt"
)
# -- one row -------------------------------------------------------------------------------------------------


def paired(
    row: Mapping[str, Any],
    prompts: PromptColumns,
    arrow: bool,
    traits: Counter[str],
    alike: bool = False,
    further: Mapping[str, str] = MappingProxyType({}),
    ends: Mapping[str, str] = MappingProxyType({}),
) -> Parsed:
    """A pair of completions.

    Args:
        row: with `chosen` and `rejected`.
        prompts: where its prompt stands.
        arrow: whether the row comes from a table, which gives messages the keys of all.
        traits: counts what is noticed.
        alike: whether both sides may be the same text, because something else tells them apart.
        further: columns of further answers, by the branches that they become.
        ends: columns that tell whether a side is whole, by the sides.
    """
    chosen = cells.as_sample(row.get("chosen"), "chosen", arrow)
    rejected = cells.as_sample(row.get("rejected"), "rejected", arrow)
    if type(chosen) is not type(rejected):
        raise UnusableItem(
            "one side is text and the other a list of messages; needed the same for both", "wrong_type"
        )
    traits["json_text"] += isinstance(row["chosen"], str) and not isinstance(chosen, str)
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if cells.is_empty(side):
            raise UnusableItem(f"{name} is empty", "empty_side")
    if chosen == rejected and not alike:
        raise UnusableItem("chosen and rejected are the same: nothing to learn", "identical_sides")
    others = [cells.as_answer(row.get(name), name, chosen, arrow) for name in further.values()]
    before = len(chosen)
    prompt, chosen, rejected = _split_prompt(row, prompts, arrow, chosen, rejected, traits)
    cut = before - len(chosen)
    others = [behind(prompt, cut, name, other) for name, other in zip(further.values(), others, strict=True)]
    prompt = prompts.with_system(prompt, row)
    sides = {"chosen": chosen, "rejected": rejected, **dict(zip(further.values(), others, strict=True))}
    repeated = sum(repeats(prompt, side) for side in sides.values())
    traits["prompt_repeated"] += repeated == len(sides)
    traits["prompt_repeated_once"] += 0 < repeated < len(sides)
    for name, side in sides.items():
        _check_turns(name, side)
    condition = _condition(prompt, row, arrow)
    outcome, scores = judgement(row, traits)
    first, second = (
        Item(condition, sides[name], ended=is_whole(row, ends.get(name))) for name in ("chosen", "rejected")
    )
    if outcome == LOSE:
        # the same comparison, told from the winner's side, so that "chosen" means chosen in every metric
        first, second, outcome, scores = second, first, WIN, (scores[1], scores[0])
        traits["swapped"] += 1
    items = (first, second, *(Item(condition, sample) for sample in others))
    return Parsed(items, outcome, *scores, branches={name: 2 + k for k, name in enumerate(further)})


def unpaired(
    row: Mapping[str, Any],
    prompts: PromptColumns,
    arrow: bool,
    traits: Counter[str],
    ends: Mapping[str, str] = MappingProxyType({}),
) -> Parsed:
    """A single sample with its label; arguments as of `paired`."""
    completion = cells.as_sample(row.get("completion"), "completion", arrow)
    if cells.is_empty(completion):
        raise UnusableItem("completion is empty", "empty_side")
    prompt = prompts.read(row, arrow)
    if prompt is None:
        raise UnusableItem(f"{prompts.parts[0]} is absent", "missing_value")
    if type(prompt) is not type(completion):
        raise UnusableItem("one of prompt and completion is text, the other a list of messages", "wrong_type")
    if row.get("label") is None:
        raise UnusableItem("label is absent; needed true or false", "missing_value")
    if isinstance(prompt, list) and completion[: len(prompt)] == prompt:
        raise UnusableItem(f"completion begins with the prompt's own messages{CUT_OFF}", "prompt_repeated")
    _check_turns("completion", completion)
    traits["json_text"] += isinstance(row["completion"], str) and not isinstance(completion, str)
    traits["prompt_repeated"] += repeats(prompt, completion)
    outcome = WIN if cells.as_flag(row["label"], "label") else LOSE
    condition = _condition(prompts.with_system(prompt, row), row, arrow)
    return Parsed((Item(condition, completion, ended=is_whole(row, ends.get("completion"))),), outcome)


def _split_prompt(
    row: Mapping[str, Any],
    prompts: PromptColumns,
    arrow: bool,
    chosen: Any,
    rejected: Any,
    traits: Counter[str],
) -> tuple[str | list[dict[str, Any]], Any, Any]:
    """The prompt and both sides without it; a prompt that is not given is what both sides start with.

    Some data sets repeat the prompt's text beside whole conversations; there too the conversations decide.
    """
    prompt = prompts.read(row, arrow)
    if prompt is not None:
        if type(prompt) is type(chosen):
            if (
                isinstance(prompt, list)
                and prompt
                and chosen[: len(prompt)] == rejected[: len(prompt)] == prompt
            ):
                raise UnusableItem(
                    f"both sides begin with the prompt's own messages{CUT_OFF}", "prompt_repeated"
                )
            return prompt, chosen, rejected
        if isinstance(chosen, str):
            raise UnusableItem("prompt is a list of messages but chosen and rejected are text", "wrong_type")
    n = cells.shared_start(chosen, rejected)
    if n == 0 and isinstance(chosen, str):
        raise UnusableItem(prompts.missing, "no_prompt")
    if n == 0:
        given = "prompt is text but chosen and rejected" if prompt is not None else "chosen and rejected"
        raise UnusableItem(
            f"{given} are messages that share no first message, so there is no prompt", "empty_prompt"
        )
    traits["implicit_text" if isinstance(chosen, str) else "implicit_messages"] += 1
    prompt, chosen, rejected = chosen[:n], chosen[n:], rejected[n:]
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if cells.is_empty(side):
            raise UnusableItem(f"{name} is empty after the start that both sides share", "empty_side")
    return prompt, chosen, rejected


def _check_turns(name: str, side: str | list[dict[str, Any]]) -> None:
    if not isinstance(side, str) and (role := side[0]["role"]) in ("user", "system", "developer"):
        raise UnusableItem(
            f"{name} begins with a message of the role {role!r}, but a completion is what the model says: move such "
            "messages to the prompt, or mend the role",
            "wrong_role",
        )


def repeats(prompt: str | list[dict[str, Any]], side: str | list[dict[str, Any]]) -> bool:
    """Whether a text repeats the prompt beside it: begins with it, or holds it near its beginning behind some mark.

    White space does not count. Prompts of a letter or two, and those of two words within a text, say nothing.
    """
    if not isinstance(prompt, str) or not isinstance(side, str):
        return False
    text, answer = " ".join(prompt.split()), " ".join(side[: 2 * len(prompt) + 100].split())
    if len(text) < 3:
        return False
    return answer.startswith(text) or (text.count(" ") > 1 and text in answer[: len(text) + 30])


def _condition(prompt: str | list[dict[str, Any]], row: Mapping[str, Any], arrow: bool) -> dict[str, Any]:
    if not isinstance(prompt, str) and cells.is_empty(prompt):
        raise UnusableItem("prompt holds no message with text", "empty_prompt")
    condition: dict[str, Any] = {"prompt": prompt}
    for name, kind in (("tools", list), ("chat_template_kwargs", dict)):
        value = cells.as_json(row.get(name), name, kind, arrow)
        if value is not None:
            condition[name] = value
    return condition


# -- words ---------------------------------------------------------------------------------------------------


def _text_only(rows: Rows, number: int, found: str) -> str:
    return (
        f"{rows.source}, {rows.place} {number}: {found}, but this method trains on text only: remove "
        "images, videos and other media from the data (ignore_columns=[NAME] leaves a column out); or, to train on pairs of "
        "images, give a diffusers pipeline as model"
    )


def text_hints(traits: Counter[str]) -> list[Hint]:
    """What was noticed of the texts."""
    hints = []
    if n := traits["prompt_repeated"]:
        hints.append(
            Hint(
                "warn",
                f"{n} row(s): the completions begin with the prompt, which the model then reads twice; cut it from them",
            )
        )
    if n := traits["prompt_repeated_once"]:
        hints.append(
            Hint("warn", f"{n} row(s): one of the completions repeats the prompt, and the other does not")
        )
    if n := traits["json_text"]:
        hints.append(Hint("note", f"{n} row(s): messages written as JSON text were read as messages"))
    if n := traits["implicit_text"]:
        hints.append(
            Hint(
                "note",
                f"{n} row(s) have no prompt: the start that both texts share was taken, which may end within a word; "
                "a prompt column is safer",
            )
        )
    if n := traits["implicit_messages"]:
        hints.append(Hint("note", f"{n} row(s): the messages that both sides share were taken as the prompt"))
    return hints


def row_of(example: Example) -> dict[str, Any]:
    """A pair as a row that `load_comparisons` reads back to the same example."""
    edge = example.comparisons[0]
    assert edge.second is not None, "pairs alone are written"
    first, second = example.items[edge.first], example.items[edge.second]
    row: dict[str, Any] = {
        "id": example.id,
        **first.condition,
        "chosen": first.sample,
        "rejected": second.sample,
    }
    if edge.outcome != WIN:
        row["votes"] = list(edge.outcome)
    if edge.weight != 1:
        row["weight"] = edge.weight
    return row | told_of(first, second) | dict(edge.columns)
