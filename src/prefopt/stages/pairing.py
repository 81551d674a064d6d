"""From judged answers to the rows of a round: the best against the worst, or the policy's against an opponent's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy.special import expit

from prefopt.generation.base import text_of
from prefopt.sources.annotation import annotate, pair_rows
from prefopt.sources.prompts import NamedPrompt


@dataclass(frozen=True)
class Judged:
    """What of a round's labels can be used.

    Attributes:
        rows: labels of prompts with two answers or more.
        conditions: by the rows' ids.
        dropped: prompts that cannot be used, by reason.
    """

    rows: list[Mapping[str, Any]]
    conditions: Mapping[str, Mapping[str, Any]]
    dropped: dict[str, int]

    @property
    def answers(self) -> list[list[Any]]:
        """Of each row."""
        return [row["answers"] for row in self.rows]

    @property
    def ended(self) -> list[list[bool]]:
        """Whether each of these answers came to its end; labels of earlier versions do not tell."""
        return [row.get("ended", [True] * len(row["answers"])) for row in self.rows]

    @property
    def names(self) -> list[str]:
        """The rows' ids."""
        return [row["id"] for row in self.rows]

    @property
    def prompts(self) -> list[Any]:
        """Of each row."""
        return [self.conditions[name]["prompt"] for name in self.names]

    def facts(self, given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What is worth knowing of all labels, before pairs are made.

        Args:
            given: all labels.
        """
        texts = [text_of(answer) for row in given for answer in row["answers"]]
        found: dict[str, Any] = {"answer_words": fmean(len(text.split()) for text in texts)}
        for name in self.rows[0].get("rewards", ()):
            found[f"reward/{name}"] = fmean(value for row in self.rows for value in row["rewards"][name])
        return found


def usable(prompts: Sequence[NamedPrompt], labels: Sequence[Mapping[str, Any]], judge: str | None) -> Judged:
    """Labels of prompts with two answers that say something, and a verdict that can be read.

    Args:
        prompts: of the round.
        labels: of each.
        judge: its name, for errors.

    Raises:
        ValueError: there are none.
    """
    judged = [row for row in labels if row.get("score", True) is not None]
    rows = [row for row in judged if len(row["answers"]) > 1]
    if not judged:
        raise ValueError(
            f"the verdicts of {judge} on all {len(labels)} prompts cannot be read: see verdicts.jsonl; the judge must reply "
            "with one word, A, B or tie. With one that does, start over with overwrite=true"
        )
    if not rows:
        raise ValueError(
            f"no pair came of {len(labels)} prompts: all answers of each but one were empty. Sample more `responses`, or "
            "train longer on labelled pairs that say something"
        )
    dropped = {}
    if len(rows) < len(judged):
        dropped["empty_answers"] = len(judged) - len(rows)
    if len(judged) < len(labels):
        dropped["unreadable_verdicts"] = len(labels) - len(judged)
    return Judged(rows, dict(prompts), dropped)


def best_and_worst(judged: Judged, beta: float | None = None) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """A pair a prompt, by score; or by implicit reward, where nobody but the policy judged.

    Args:
        judged: usable labels.
        beta: scale of the implicit reward; None: labels hold scores.

    Returns:
        Rows, and prompts without one by reason.

    Raises:
        ValueError: no prompt gives a pair.
    """
    if beta is None:
        policy = [row["score"] for row in judged.rows]
        reference = [[0.0] * len(row) for row in policy]
    else:
        policy, reference = ([row[f"logp_{side}"] for row in judged.rows] for side in ("policy", "reference"))
    texts = [[text_of(answer) for answer in row] for row in judged.answers]
    annotation = annotate(policy, reference, 1.0 if beta is None else beta, texts)
    rows = pair_rows(annotation, judged.prompts, judged.answers, judged.names)
    kept = [(p, whole) for p, whole in enumerate(judged.ended) if annotation.keep_P[p]]
    for row, (p, whole) in zip(rows, kept, strict=True):
        row["chosen_ended"] = whole[annotation.chosen_P[p]]
        row["rejected_ended"] = whole[annotation.rejected_P[p]]
    return rows, dict(annotation.dropped)


def with_reference_side(rows: Sequence[dict[str, Any]], judged: Judged) -> list[dict[str, Any]]:
    """Pairs of the policy's answer and the reference's, each with whose the winner is, as xpo reads it."""
    first = {row["id"]: row["answers"][0] for row in judged.rows}
    return [row | {"reference_first": float(row["chosen"] != first[row["id"]])} for row in rows]


def against_opponent(judged: Judged, rewards: bool) -> list[dict[str, Any]]:
    """The policy's answers, each with the probability that it is preferred to the opponent's, as nash_md reads them.

    Args:
        judged: labels whose answers are the policy's, then the opponent's.
        rewards: whether scores are rewards, of which Bradley and Terry make a probability; else preferences.
    """
    out = []
    for row, prompt, ended in zip(judged.rows, judged.prompts, judged.ended, strict=True):
        ours, theirs = row["score"]
        probability = float(expit(ours - theirs)) if rewards else float(ours)
        out.append(
            {
                "id": row["id"],
                "prompt": prompt,
                "completion": row["answers"][0],
                "completion_ended": ended[0],
                "label": probability >= 0.5,
                "probability": probability,
                "opponent": row["answers"][1],
            }
        )
    return out
