"""What the arms of `films.py` come to, as claims, tables and figures. Accuracies in percent, their differences in points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, within
from prefopt.reproduce.longvpo.films import (
    AMBIGUOUS,
    ARMS,
    FEW,
    FIRST,
    FIXED,
    FULL,
    LAST,
    LONGVPO,
    MANY,
    NO_SFT,
    SECOND,
    SFT,
    SHARED,
    STAGE_2,
    START,
    WRONG,
    Trained,
)
from prefopt.reproduce.paired import mean, minus
from prefopt.worlds.film.world import LENGTHS

Found = Mapping[str, Sequence[Trained]]
"""Arm, or the start -> one a seed."""

LONG, LONGER = 8, 16
"""Clips of a film: as many as in training, and twice as many."""
PILOT = "expected direction of a pilot in a world alike"
ABSTRACT = "abstract"
NOTES = "third-party notes on the body"
GAINED, FLAT, SKEWED, KEPT = 8.0, 20.0, 40.0, 3.0
"""Points: gained at 8 clips at least; spread over quarters at most, and at least with a fixed slot; lost on short films at most."""
REDRAWN = 10.0
"""Points that films drawn anew are worth at least."""
ORDERED, STAGES_KEPT = 80.0, 3.0
"""Percent of order questions that the second stage gets right at least; points that it may cost."""


def accuracy(found: Found, arm: str, length: int = LONG) -> list[float]:
    """Percent of answers right, one a seed."""
    return [100 * run.films[length].accuracy for run in found[arm]]


def spread(found: Found, arm: str) -> list[float]:
    """Points between the best and the worst quarter of films of 8 clips, one a seed."""
    return [100 * run.films[LONG].spread for run in found[arm]]


def elsewhere(found: Found, arm: str) -> list[float]:
    """Percent of the films of 8 clips that are answered with another clip's answer, one a seed."""
    return [
        100 * (1 - run.films[LONG].accuracy) * run.films[LONG].hallucinated
        if run.films[LONG].accuracy < 1
        else 0.0
        for run in found[arm]
    ]


def ordered(found: Found, arm: str) -> list[float]:
    """Percent of order questions whose answer names the right object, one a seed."""
    return [100 * run.order.first for run in found[arm]]


def claims(found: Found) -> list[Claim]:
    """C1 to C8 as far as a miniature tests them, and what the preference term is worth."""

    def above(
        statement: str, over: Sequence[float], under: Sequence[float], how: str, source: str, least: float = 0.0
    ) -> Claim:  # fmt: skip
        by = f", minus {least:g}" if least > 0 else f", plus {-least:g}" if least < 0 else ""
        return directional(
            statement, [d - least for d in minus(list(over), list(under))], source=source, how=how + by, unit="points"
        )  # fmt: skip

    def gain(
        statement: str, over: str, under: str, source: str, least: float = 0.0, length: int = LONG
    ) -> Claim:
        return above(
            statement, accuracy(found, over, length), accuracy(found, under, length),
            f"accuracy at {length} clips, {over} - {under}", source, least,
        )  # fmt: skip

    def kept(length: int) -> Claim:
        return gain(
            f"C3: films of {'one clip' if length == 1 else f'{length} clips'} are read as before, within {KEPT:g} points",
            LONGVPO, START, "MVBench 75.4 to 75.0", -KEPT, length,
        )  # fmt: skip

    def skewed(arm: str) -> list[Claim]:
        level = [SKEWED] * len(found[arm])
        return [
            above(
                f"C2: with the {arm} the position bias is {SKEWED:g} points or more", spread(found, arm), level,
                f"spread over quarters at {LONG} clips, {arm} - {SKEWED:g}", PILOT,
            ),
            gain(f"C2: with the {arm} long films are read worse than by the start", START, arm, PILOT),
        ]  # fmt: skip

    seeds = len(found[START])
    return [
        gain(f"C1: pairs anchored in short clips raise accuracy on films of {LONG} clips by at least {GAINED:g} points",
             LONGVPO, START, f"{ABSTRACT}; {PILOT}", GAINED),
        gain("C1: and on films twice as long as those of the training", LONGVPO, START, ABSTRACT, 0.0, LONGER),
        above("C2: anchors at random places make the position bias smaller", spread(found, START), spread(found, LONGVPO),
              f"spread over quarters at {LONG} clips, {START} - {LONGVPO}", f"{ABSTRACT}; {PILOT}"),
        above(f"C2: to at most {FLAT:g} points", [FLAT] * seeds, spread(found, LONGVPO),
              f"{FLAT:g} - spread over quarters at {LONG} clips, {LONGVPO}", PILOT),
        *skewed(LAST),
        *skewed(FIRST),
        kept(1),
        kept(2),
        within("C4: the reference reads one clip in eight", [run.share - 1 / LONG for run in found[LONGVPO]], 1e-9,
               source=ABSTRACT, how=f"share of visual tokens that the reference reads, {LONGVPO}, - 1/{LONG}"),
        gain("C5: a reference that sees the anchor alone teaches more than one that sees all", LONGVPO, FULL,
             f"{NOTES}: one says needed, one says equal"),
        gain("C5: without the second term an anchored reference costs short skill", START, NO_SFT, PILOT, 0.0, 1),
        gain("C6: ambiguous questions with the other clip's answer do harm", LONGVPO, AMBIGUOUS, f"{NOTES}: filters are needed"),
        gain("C6: answers of another clip do harm", LONGVPO, WRONG, f"{NOTES}: filters are needed"),
        above(f"C7: the second stage teaches the order of two scenes, {ORDERED:g} % at least", ordered(found, STAGE_2),
              [ORDERED] * seeds, f"order questions with the right object, {STAGE_2} - {ORDERED:g}", f"{ABSTRACT}; {PILOT}"),
        gain(f"C7: and keeps what the first has taught, within {STAGES_KEPT:g} points", STAGE_2, LONGVPO, PILOT, -STAGES_KEPT),
        gain(f"C8: 256 pairs are enough: twice as many give less than {KEPT:g} points more", LONGVPO, MANY,
             "16 thousand examples", -KEPT),
        gain(f"films drawn anew make 256 pairs worth {REDRAWN:g} points more", LONGVPO, FIXED, PILOT, REDRAWN),
        gain("the preference term adds to learning from chosen answers alone", LONGVPO, SFT, "no claim: the control of the objective"),
        above("fewer films are answered with another clip's answer than after learning from chosen answers alone",
              elsewhere(found, SFT), elsewhere(found, LONGVPO),
              f"share of films of {LONG} clips answered so, {SFT} - {LONGVPO}", "no claim: the control of the objective"),
    ]  # fmt: skip


def experiment(found: Found) -> Part:
    """Claims, numbers and figures."""
    seeds = len(found[START])

    def told(values: Sequence[float]) -> str:
        middle, half = plots.centre(values)
        return f"{middle:.1f} +- {half:.1f}" if half else f"{middle:.1f}"

    def row(arm: str) -> list[str | float]:
        bins = [
            mean([100 * run.films[LONG].by_bin[k] for run in found[arm]])
            for k in range(len(found[arm][0].films[LONG].by_bin))
        ]
        return [
            arm,
            *(told(accuracy(found, arm, length)) for length in LENGTHS),
            " ".join(f"{share:.0f}" for share in bins),
            told(spread(found, arm)),
            told(elsewhere(found, arm)),
            told(ordered(found, arm)),
            mean([run.seconds for run in found[arm]]),
        ]

    columns = ["arm", *(f"{length} clips" for length in LENGTHS), f"quarters at {LONG}", f"spread at {LONG}"]
    columns += [f"another clip's, {LONG}", "order", "processor seconds"]
    return Part(
        claims=claims(found),
        tables=[
            Table(
                f"accuracy on test films in percent, means of {seeds} seeds with 95 % intervals",
                columns,
                [row(arm) for arm in (START, *ARMS, STAGE_2)],
            )
        ],
        plots=[by_place(found), by_length(found)],
        settings={
            "films": {
                "all": SHARED,
                "arms": {name: asdict(arm) for name, arm in ARMS.items()},
                "second stage": SECOND,
                "seeds": seeds,
            }
        },
        notes=[
            "a world of moving shapes and a model of 0.2 million parameters that reads single clips without a mistake, so chosen answers "
            "hold no noise, and are three tokens long: both favour learning from chosen answers alone",
            "each seed has its own world; models and clips are made once, then cached, and not in the seconds",
            "quarters of a film are told by the slot of the clip that the question is about; each has a quarter of the test films",
        ],
    )


LOOKS: dict[str, tuple[str, str, str]] = {
    START: (plots.QUIET, "*", "--"),
    LONGVPO: (plots.GREEN, "o", "-"),
    SFT: (plots.BLUE, "s", "-"),
    FULL: (plots.PURPLE, "D", "-"),
    FIXED: (plots.ORANGE, "v", "-"),
    LAST: (plots.VERMILION, "^", ":"),
    FIRST: (plots.SKY, "P", ":"),
    FEW: (plots.INK, "X", ":"),
}
"""Colour, marker and line of an arm in figures."""


def drawn(ax: Any, found: Found, arm: str, x: Sequence[float], columns: Sequence[Sequence[float]]) -> None:
    """A curve of an arm in its look."""
    colour, marker, line = LOOKS[arm]
    plots.curve(ax, x, columns, label=arm, colour=colour, marker=marker, line=line)


@plots.styled
def by_place(found: Found) -> Plot:
    """Accuracy by the quarter that the answer is in, before and after."""
    figure, (main, slots) = plots.panels(2, width=5.4, height=4.2)
    quarters = [1, 2, 3, 4]
    for ax, arms in ((main, (START, SFT, FULL, LONGVPO)), (slots, (START, FIRST, LAST, LONGVPO))):
        for arm in arms:
            columns = [[100 * run.films[LONG].by_bin[q - 1] for run in found[arm]] for q in quarters]
            drawn(ax, found, arm, quarters, columns)
        ax.set_xticks(quarters, ["first", "second", "third", "last"])
        ax.set_xlabel("quarter of the film that the answer is in")
        ax.set_ylim(0, 100)
        ax.legend(loc="lower center", ncols=2)
    main.set_ylabel(f"right answers at {LONG} clips (%)")
    main.set_title("Anchors at random places")
    slots.set_title("Anchors at one place")
    return Plot(
        "longvpo_places",
        f"Test films of {LONG} clips, accuracy by the quarter that the answer is in; means of {len(found[START])} seeds with 95 % intervals",
        figure,
    )


@plots.styled
def by_length(found: Found) -> Plot:
    """Accuracy by the number of clips, and by the number of pairs."""
    figure, (lengths, pairs) = plots.panels(2, width=5.4, height=4.2)
    for arm in (START, FIXED, LAST, SFT, LONGVPO):
        columns = [accuracy(found, arm, length) for length in LENGTHS]
        drawn(lengths, found, arm, range(len(LENGTHS)), columns)
    lengths.axvline(LENGTHS.index(LONG), color=plots.GRID, linewidth=6, zorder=0)
    lengths.set_xticks(range(len(LENGTHS)), [str(length) for length in LENGTHS])
    lengths.set_xlabel("clips of a film (8 in training)")
    lengths.set_ylabel("right answers (%)")
    lengths.set_ylim(0, 103)
    lengths.set_title("By length")
    lengths.legend(loc="lower left")
    several = (FEW, LONGVPO, MANY)
    plots.curve(
        pairs, range(3), [accuracy(found, arm) for arm in several], label="drawn anew", colour=plots.GREEN
    )
    middle, half = plots.centre(accuracy(found, FIXED))
    pairs.errorbar(
        [1], [middle], yerr=[half], color=plots.ORANGE, marker="v", capsize=3, label="as rows have them", linestyle="none"
    )  # fmt: skip
    pairs.axhline(mean(accuracy(found, START)), color=plots.QUIET, linestyle="--", label=START)
    pairs.set_xticks(range(3), ["64", "256", "512"])
    pairs.set_xlabel("pairs")
    pairs.set_ylabel(f"right answers at {LONG} clips (%)")
    pairs.set_title("By pairs")
    pairs.legend(loc="lower right")
    return Plot(
        "longvpo_lengths",
        f"Test films. Left: accuracy by the number of clips. Right: at {LONG} clips, by the number of pairs; means of "
        f"{len(found[START])} seeds with 95 % intervals",
        figure,
    )
