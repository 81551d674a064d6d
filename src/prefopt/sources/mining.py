"""Scored, judged, verified or ranked candidates -> rows of comparisons, ties included.

Rules R1 to R4 follow the recipes of "On Extending Direct Preference Optimization to Accommodate Ties" (arXiv
2409.17431); the last two are plain conversions:

    extremes_and_closest  R1  win: best against worst; tie: the two nearest in score                  (section 3.1)
    smallest_margin       R2  ties among existing pairs: the smallest implicit margin of each prompt  (section 3.1)
    conflicting_judges    R3  win: largest mean difference; tie: a pair on which judges disagree      (section 3.5)
    all_correct           R4  win: right against wrong; tie: two right answers                        (section 3.5)
    threshold                 a tie where scores differ by at most eps
    ranks_to_pairs            ranked lists; equal ranks are ties

Input rows are {"prompt": ..., "candidates": [{"text": ..., "score": 0.7}, ...]}; what a candidate carries besides
its text (a string or messages) is said at each rule. Candidates of one prompt with the same text count once, so no
pair has identical sides. Every function is pure and returns rows that `prefopt train` and TRL read, each with
`label` and where it comes from: `rule`, `source`, `score_chosen`, `score_rejected`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from prefopt.sources.candidates import (
    CORRECTNESS,
    JUDGE_SCORES,
    MEAN_SCORE,
    NEGATIVE_RANK,
    Candidate,
    Mined,
    Pair,
    Pairing,
    Row,
    Writer,
    disagree,
    each_prompt,
    is_number,
    mean_of,
    ordered_pairs,
    row_id_of,
    select_pairs,
    text_key,
)

# -- the rules -----------------------------------------------------------------------------------------------


def extremes_and_closest(rows: Iterable[Row], pairs_per_prompt: int = 1) -> Mined:
    """R1: the pair furthest apart is a win, the pair closest together a tie.

    Args:
        rows: candidates with `score` (higher is better), or `scores` by judge, of which the mean is taken.
        pairs_per_prompt: wins, and ties, to take of each prompt: the next most extreme and the next closest pairs,
            those of candidates not taken yet first. No pair is both.

    Returns:
        Up to `pairs_per_prompt` wins and as many ties a prompt; fewer where it has fewer pairs. A prompt whose
        scores are all equal gives ties only.

    Example:
        >>> scored = [{"text": t, "score": s} for t, s in (("a", 0.9), ("b", 0.8), ("c", 0.1))]
        >>> [(r["chosen"], r["rejected"], r["label"]) for r in extremes_and_closest([{"prompt": "", "candidates": scored}]).rows]
        [('a', 'c', 'win'), ('a', 'b', 'tie')]
    """
    if pairs_per_prompt < 1:
        raise ValueError(f"pairs_per_prompt must be at least 1; given {pairs_per_prompt}")

    def rule(candidates: Sequence[Candidate], out: Writer) -> None:
        pairs = ordered_pairs(candidates)
        furthest = sorted((p for p in pairs if p.gap > 0), key=lambda pair: -pair.gap)
        closest = sorted(pairs, key=lambda pair: pair.gap)
        wins: list[Pair] = []
        ties: list[Pair] = []
        for _ in range(pairs_per_prompt):  # in turns, so that with few candidates each kind gets its best
            for ranked, own, label in ((furthest, wins, "win"), (closest, ties, "tie")):
                pair = _next_pair(ranked, own, taken=wins + ties)
                if pair is not None:
                    own.append(pair)
                    out.add(pair, label)
        if not wins:
            out.drop("all_scores_equal")
        if not ties:
            out.drop("no_second_pair_for_a_tie")

    return each_prompt(rows, "extremes_and_closest", MEAN_SCORE, rule)


def _next_pair(ranked: Sequence[Pair], own: Sequence[Pair], taken: Sequence[Pair]) -> Pair | None:
    """The first pair not taken, among those disjoint from `own` if there are any."""
    left = [pair for pair in ranked if pair not in taken]
    used = [candidate for pair in own for candidate in pair]
    return next(
        (p for p in left if p.chosen not in used and p.rejected not in used), left[0] if left else None
    )


def smallest_margin(rows: Iterable[Row], margin: str = "margin", include_single: bool = False) -> Mined:
    """R2: of each prompt's pairs, the one with the smallest implicit margin becomes a tie; the others stay wins.

    Args:
        rows: preference rows `prompt`, `chosen`, `rejected` with a numeric column `margin`: the implicit reward
            margin of the pair under a policy that was trained on these very pairs with DPO,
            (log pi(y_w) - log pi_ref(y_w)) - (log pi(y_l) - log pi_ref(y_l)), times any positive beta; only its
            size within a prompt matters. Such a policy costs one full DPO run (paper: beta 0.1).
        margin: name of that column.
        include_single: also turn the pair of a prompt that has only one into a tie; it would lose its only win.

    Returns:
        The same pairs, one a prompt relabelled. Rows without a usable margin are dropped.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    out = Writer("smallest_margin")
    for n, row in enumerate(rows, 1):
        out.prompts += 1
        for name in ("prompt", "chosen", "rejected", margin):
            if name not in row:
                raise ValueError(
                    f"row {n} has no {name!r}; smallest_margin needs prompt, chosen, rejected and the implicit margin "
                    f"of each pair under a DPO-trained policy in a column (here {margin!r}); the row has "
                    f"{', '.join(row)}"
                )
        if not is_number(row[margin]):
            out.drop("bad_margin")
        elif text_key(row["chosen"]) == text_key(row["rejected"]):
            out.drop("identical_sides")
        else:
            groups[text_key(row["prompt"])].append({**row, "id": row_id_of(row, n)})
    for group in groups.values():
        smallest = min(range(len(group)), key=lambda k: abs(group[k][margin]))
        for k, row in enumerate(group):
            tie = k == smallest and (len(group) > 1 or include_single)
            out.rows.append({"source": row["id"], **row, "label": "tie" if tie else "win", "rule": out.rule})
    return out.mined()


def conflicting_judges(rows: Iterable[Row]) -> Mined:
    """R3: the pair with the largest mean difference is a win; a pair on whose order judges disagree is a tie.

    Of several such pairs the one with the smallest mean difference is taken (the paper keeps one and does not say
    which).

    Args:
        rows: candidates with `scores`, a number by judge, two judges or more, the same ones for all of a prompt.
    """

    def rule(candidates: Sequence[Candidate], out: Writer) -> None:
        judges = set(candidates[0].value)
        if any(set(c.value) != judges for c in candidates):
            out.drop("different_judges")
            return
        means = [Candidate(c.text, mean_of(c.value)) for c in candidates]
        scores = {text_key(c.text): c.value for c in candidates}
        pairs = sorted(ordered_pairs(means), key=lambda pair: -pair.gap)
        if pairs[0].gap > 0:
            out.add(pairs[0], "win")
        else:
            out.drop("all_scores_equal")
        rest = pairs[1:] if pairs[0].gap > 0 else pairs
        conflicts = [
            p for p in rest if disagree(scores[text_key(p.chosen.text)], scores[text_key(p.rejected.text)])
        ]
        if conflicts:
            out.add(conflicts[-1], "tie")
        else:
            out.drop("no_conflict_for_a_tie")

    return each_prompt(rows, "conflicting_judges", JUDGE_SCORES, rule)


def all_correct(rows: Iterable[Row], seed: int = 0) -> Mined:
    """R4: where some answers are right and some wrong, a random right one beats a random wrong one; where all are
    right, two random ones tie; where all are wrong, nothing.

    Args:
        rows: candidates with `correct`, true or false.
        seed: of the choices. A row's choice depends on the seed and its `id` (its number, without one) alone.
    """

    def rule(candidates: Sequence[Candidate], out: Writer) -> None:
        chance = random.Random(f"{seed}/{out.row_id}")
        right = [c for c in candidates if c.value == 1]
        wrong = [c for c in candidates if c.value == 0]
        if right and wrong:
            out.add(Pair(chance.choice(right), chance.choice(wrong)), "win")
        elif right:
            out.add(Pair(*chance.sample(right, 2)), "tie")
        else:
            out.drop("all_wrong")

    return each_prompt(rows, "all_correct", CORRECTNESS, rule)


def threshold(rows: Iterable[Row], eps: float, pairs: Pairing = "all") -> Mined:
    """Pairs whose scores differ by at most `eps` are ties; of the others, the higher score wins.

    Args:
        rows: candidates with `score`, or `scores` by judge, of which the mean is taken; or preference rows with
            `score_chosen` and `score_rejected`, which are labelled anew.
        eps: largest difference of a tie, in the scores' unit; 0 makes ties of equal scores alone. There is no
            default: only the scale of your scores tells.
        pairs: of candidates sorted by score: "all" pairs, "adjacent" ones, or "best_vs_rest".
    """
    if not (is_number(eps) and eps >= 0):
        raise ValueError(f"eps must be a number >= 0 in the unit of the scores; given {eps!r}")
    rows = list(rows)
    if rows and "candidates" not in rows[0] and "chosen" in rows[0]:
        return _relabel(rows, eps)

    def rule(candidates: Sequence[Candidate], out: Writer) -> None:
        for pair in select_pairs(candidates, pairs):
            out.add(pair, "tie" if pair.gap <= eps else "win")

    return each_prompt(rows, "threshold", MEAN_SCORE, rule)


def _relabel(rows: Sequence[Row], eps: float) -> Mined:
    out = Writer("threshold")
    for n, row in enumerate(rows, 1):
        out.prompts += 1
        if missing := [
            name for name in ("chosen", "rejected", "score_chosen", "score_rejected") if name not in row
        ]:
            raise ValueError(
                f"row {n} has no {missing[0]!r}; to label pairs by their scores, threshold needs chosen, rejected, "
                f"score_chosen and score_rejected; the row has {', '.join(row)}"
            )
        scores = (row["score_chosen"], row["score_rejected"])
        if not all(map(is_number, scores)):
            out.drop("bad_score")
        elif text_key(row["chosen"]) == text_key(row["rejected"]):
            out.drop("identical_sides")
        else:
            sides = [(scores[0], row["chosen"]), (scores[1], row["rejected"])]
            (high, chosen), (low, rejected) = sides if scores[0] >= scores[1] else sides[::-1]
            out.rows.append(
                {
                    "source": row_id_of(row, n),
                    **row,
                    "id": row_id_of(row, n),
                    "chosen": chosen,
                    "rejected": rejected,
                    "score_chosen": high,
                    "score_rejected": low,
                    "label": "tie" if high - low <= eps else "win",
                    "rule": out.rule,
                }
            )
    return out.mined()


def ranks_to_pairs(rows: Iterable[Row], pairs: Pairing = "all") -> Mined:
    """Ranked lists as pairs; candidates of equal rank tie.

    Args:
        rows: candidates with `rank`, a number; 1 is best and equal numbers are ties.
        pairs: "all" n(n-1)/2 pairs; "adjacent", each with the next in rank, n-1 pairs; "best_vs_rest", the first in
            rank with each other, n-1 pairs.

    Example:
        >>> ranked = [{"text": t, "rank": r} for t, r in (("a", 2), ("b", 1), ("c", 2))]
        >>> [(r["chosen"], r["rejected"], r["label"]) for r in ranks_to_pairs([{"prompt": "", "candidates": ranked}]).rows]
        [('b', 'a', 'win'), ('b', 'c', 'win'), ('a', 'c', 'tie')]
    """

    def rule(candidates: Sequence[Candidate], out: Writer) -> None:
        for pair in select_pairs(candidates, pairs):
            out.add(pair, "tie" if pair.gap == 0 else "win")

    return each_prompt(rows, "ranks_to_pairs", NEGATIVE_RANK, rule)
