"""`report.html`: the page of one training run, section by section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from prefopt.files import PAGES, write_whole
from prefopt.report import charts
from prefopt.report.account import Account, idle_keys, read
from prefopt.report.curves import curve_groups, diagnostics
from prefopt.report.findings import findings
from prefopt.report.format import data_size, finite, items, number, percent
from prefopt.report.load import Run
from prefopt.report.page import Section, figure, page, render
from prefopt.report.papers import paper_link
from prefopt.report.stages import stage_table
from prefopt.report.summary import key_figures, summary

OUTCOME_COLOURS = {
    "wins": "chosen",
    "ties": "tie",
    "soft": "a",
    "desirable": "chosen",
    "undesirable": "rejected",
    "prompts": "a",
}


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run folder from what the folder holds.

    Args:
        run_dir: folder of a run in any state: running, stopped, failed or finished. Files that are absent or cannot be
            read are named on the page.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: `run_dir` is not a folder.

    Example:
        >>> write_report("runs/ties")  # doctest: +SKIP
        PosixPath('runs/ties/report.html')
    """
    run, account = read(run_dir)
    path = run.folder / "report.html"
    write_whole(path, run_page(run, account).encode(errors="replace"), "the report", PAGES)
    return path


def run_page(run: Run, account: Account) -> str:
    """The page as text."""
    samples = _section("samples", account.samples_title, "Samples", account.samples, run)
    shown = [
        _section("stages", "Stages", "Stages", stage_table, run),
        _section("checks", "Start-of-run checks", "Checks", _checks, run),
        _section("curves", "Training curves", "Curves", partial(_curves, account=account), run),
        _section("margins", "Margins before and after", "Margins", partial(_margins, account=account), run),
        *_guarded_sections(account.own_sections, run),
        *_guarded_sections(lambda run: [account.first_pair(run)], run),
        _section("data", "Data", "Data", partial(_data, account=account), run),
        _section("run", "Run and configuration", "Run", _provenance, run),
        _section("load", "Load the model", "Load", partial(_load, account=account), run),
        _section("cite", "Cite", "Cite", _cite, run),
    ]
    shown.insert(1 if account.samples_first else 4, samples)
    version = run.of("manifest", "prefopt")
    return page(
        run.name,
        [section for section in shown if section.body.strip()],
        header=_guarded(partial(_header, account=account), run),
        kicker=" · ".join(
            str(x) for x in ("Training run", run.of("manifest", "method") or run.of("config", "method")) if x
        ),
        footer=f"Written by prefopt{f' {version}' if version else ''}. This file needs nothing else: "
        "it can be sent, opened offline and printed.",
        own_style=account.own_style(),
        own_script=account.own_script(),
    )


def _section(id_: str, title: str, nav: str, build: Callable[[Run], Markup], run: Run) -> Section:
    return Section(id_, title, _guarded(build, run), nav)


def _guarded(build: Callable[[Run], Markup], run: Run) -> Markup:
    """A section, or a sentence on why it cannot be drawn: one malformed file must not cost the rest of the page."""
    try:
        return build(run)
    except Exception as error:
        return render("broken", error=f"{type(error).__name__}: {error}")


def _guarded_sections(build: Callable[[Run], list[Section]], run: Run) -> list[Section]:
    """A modality's own sections, or one that says why they cannot be drawn."""
    try:
        return build(run)
    except Exception as error:
        told = render("broken", error=f"{type(error).__name__}: {error}")
        return [Section("broken", "What cannot be shown", told, "Broken")]


def _header(run: Run, account: Account) -> Markup:
    status = str(run.of("manifest", "status") or "unknown")
    return render(
        "run/header",
        status=status,
        status_level="pass"
        if status == "finished"
        else "note"
        if status in ("running", "unknown")
        else "fail",
        summary=summary(run, account),
        idea=run.of("manifest", "summary"),
        figures=[(f, charts.sparkline(f.history)) for f in key_figures(run, account)],
        findings=findings(run, account),
        missing=run.missing,
    )


def _checks(run: Run) -> Markup:
    checks = [c for c in items(run.of("manifest", "checks")) if isinstance(c, Mapping)]
    if not checks:
        return Markup("")
    words = {"pass": "passed", "warn": "warning", "fail": "failed", "note": "note"}
    counts = {word: sum(c.get("status") == status for c in checks) for status, word in words.items()}
    return render("run/checks", checks=checks, words=words, counts={k: n for k, n in counts.items() if n})


def _curves(run: Run, account: Account) -> Markup:
    if not run.metrics.names():
        return Markup("")
    groups = account.curves(run)
    more, unplotted = diagnostics(run, groups)
    return render("run/curves", groups=curve_groups(run, groups), more=more, unplotted=unplotted)


def _margins(run: Run, account: Account) -> Markup:
    def values(when: str, kind: str) -> list[float]:
        return [v for v in (finite(x) for x in items(run.of("margins", when, kind))) if v is not None]

    unit = account.margin_unit or str(run.of("margins", "unit") or "beta*(rho_w-rho_l), nats")
    for written, shown in (("beta", "β"), ("rho", "ρ"), ("*", " "), ("-", " − ")):
        unit = unit.replace(written, shown)
    everything = [v for when in ("before", "after") for kind in ("wins", "ties") for v in values(when, kind)]
    if not everything:
        return Markup("")
    span = (min(everything), max(everything))
    figures = []
    for kind, colour in (("wins", "chosen"), ("ties", "tie")):
        before, after = values("before", kind), values("after", kind)
        bins = charts.bin_values([("before", before, "before"), ("after", after, colour)], x_range=span)
        chart = charts.histogram(
            bins, title=f"Margins of {kind}", x_label=f"margin, {unit}", x_range=span, levels=[(0.0, "")],
        )  # fmt: skip
        if not chart:
            continue
        heading = f"{number(max(len(before), len(after)))} {kind if max(len(before), len(after)) != 1 else kind[:-1]}"
        if kind == "wins":
            look = "The mass moves right of zero."
            trouble = (
                "A long tail on the left: comparisons the model gets more and more wrong, often wrong labels."
            )
            facts = [
                f"{percent(_right(v))} {when}" for when, v in (("before", before), ("after", after)) if any(v)
            ]
            measured = f"Right of zero: {', '.join(facts)}." if facts else ""
        else:
            look = "The mass stays near zero, narrower than the wins."
            trouble = f"As wide as the wins: the policy prefers one of two equal {account.samples_word} for no reason."
            facts = [
                f"{number(median(map(abs, v)), 3)} {when}"
                for when, v in (("before", before), ("after", after))
                if any(v)
            ]
            measured = f"Median distance from zero: {', '.join(facts)}." if facts else ""
        look = f"{look} {measured}".strip()
        figures.append(figure(heading, chart, look, trouble))
    split = str(run.of("margins", "split") or "held-out")
    return render(
        "run/margins", figures=figures, split="training" if "train" in split else "held-out", unit=unit
    )


def _right(values: list[float]) -> float:
    """Share above zero, equal counting one half, as in `rewards/accuracies`."""
    return sum(1.0 if v > 0 else 0.5 if v == 0 else 0.0 for v in values) / len(values)


def _data(run: Run, account: Account) -> Markup:
    if not run.data:
        return Markup("")
    kinds = run.of("data", "comparisons")
    counts = {k: n for k, n in kinds.items() if finite(n)} if isinstance(kinds, Mapping) else {}
    if run.online:
        counts = {}  # prompts, of which the first sentence tells
    histograms = run.of("data", "histograms")
    bins = []
    for side in ("chosen", "rejected"):
        edges, heights = (
            run.of("data", "histograms", side, "edges"),
            run.of("data", "histograms", side, "counts"),
        )
        if isinstance(histograms, Mapping) and isinstance(edges, list) and isinstance(heights, list):
            bins.append(charts.Bins(label=side, edges=edges, counts=heights, colour=side))
    unit = str(run.of("data", "lengths", "unit") or "units")
    lengths = [(part, run.of("data", "lengths", part)) for part in ("prompt", "chosen", "rejected")]
    dropped = run.of("data", "dropped")
    hints = [h for h in items(run.of("data", "hints")) if isinstance(h, Mapping)]
    if balance := run.of("data", "label_balance_hint"):
        hints.append({"level": "note", "text": balance})
    return render(
        "run/data",
        data=run.data,
        manifest_data=run.of("manifest", "data") if isinstance(run.of("manifest", "data"), Mapping) else {},
        composition=charts.stacked_bar(
            [(k, float(n), number(n)) for k, n in counts.items()], title="Comparisons by outcome",
            colours=[OUTCOME_COLOURS.get(k, "e") for k in counts],
        ),
        hints=hints,
        dropped=sorted(dropped.items(), key=lambda item: -(finite(item[1]) or 0)) if isinstance(dropped, Mapping) else [],
        truncated=run.of("data", "truncated") if isinstance(run.of("data", "truncated"), Mapping) else {},
        unit=unit,
        lengths=[(part, values) for part, values in lengths if isinstance(values, Mapping)],
        gap=run.of("data", "length_gap") if isinstance(run.of("data", "length_gap"), Mapping) else {},
        chart=charts.histogram(bins, title="Lengths of both sides", x_label=f"length, {unit}"),
        facts=account.data_facts(run),
        samples=account.samples_word,
        online=run.online,
    )  # fmt: skip


def _provenance(run: Run) -> Markup:
    if not (run.manifest or run.config):
        return Markup("")
    idle = idle_keys(run)
    config = {k: v for k, v in run.config.items() if k not in idle}
    parts = [
        (str(p.get("part")), size, data_size(size))
        for p in items(run.of("manifest", "memory_forecast"))
        if isinstance(p, Mapping) and (size := finite(p.get("bytes"))) is not None
    ]
    peak = finite(run.of("manifest", "peak_memory_bytes"))
    memory = charts.stacked_bar(
        parts,
        title="Memory forecast",
        marker=(peak, f"measured peak {data_size(peak)}") if peak is not None else None,
    )
    changed = run.of("manifest", "non_default")
    return render(
        "run/provenance",
        groups=_facts(run),
        command=run.of("manifest", "command"),
        memory=memory,
        forecast=sum(size for _, size, _ in parts),
        peak=peak,
        config=config,
        # a list of keys, or a mapping of key to default
        changed={str(k) for k in changed} if isinstance(changed, list | Mapping) else set(),
        defaults=changed if isinstance(changed, Mapping) else {},
    )


def _facts(run: Run) -> list[tuple[str, list[tuple[str, Any, str]]]]:
    """The manifest as (group, [(name, value, filter)]); absent values left out."""
    data: list[tuple[str, tuple[str, ...], str]] = [
        ("training examples", ("data", "examples"), "number"),
        ("held-out examples", ("data", "eval_examples"), "number"),
    ]
    if run.online:
        data = []  # its prompts are counted in the data section
    wanted: list[tuple[str, list[tuple[str, tuple[str, ...], str]]]] = [
        ("Run", [("started", ("started",), "moment"), ("finished", ("finished",), "moment"), ("duration", ("duration_s",), "duration"),
                 ("steps", ("steps",), "number"), ("epochs", ("epochs",), "number"),
                 ("prompts a round" if run.online else "effective batch size", ("effective_batch_size",), "number"), ("seed", ("seed",), "plain")]),
        ("Model", [("source", ("model", "source"), ""), ("class", ("model", "class"), ""), ("parameters", ("model", "parameters"), "si"),
                   ("trainable", ("model", "trainable"), "si"), ("dtype", ("model", "dtype"), ""),
                   ("fingerprint", ("model", "fingerprint"), "code")]),
        ("Data", [("source", ("data", "source"), ""), *data, ("fingerprint", ("data", "fingerprint"), "code")]),
        ("Machine", [("device", ("machine", "device"), ""), ("GPU", ("machine", "gpu"), ""), ("cores", ("machine", "cores"), "number"),
                     ("memory, GB", ("machine", "memory_gb"), "number")]),
    ]  # fmt: skip
    groups = []
    for heading, rows in wanted:
        found = [(name, run.of("manifest", *path), kind) for name, path, kind in rows]
        groups.append((heading, [row for row in found if row[1] not in (None, "")]))
    versions = run.of("manifest", "versions")
    if isinstance(versions, Mapping):
        groups.append(("Versions", [(str(name), value, "") for name, value in versions.items()]))
    return [group for group in groups if group[1]]


def _load(run: Run, account: Account) -> Markup:
    return render("run/load", loading=account.loading(run), there=account.has_model(run))


def _cite(run: Run) -> Markup:
    paper = run.of("manifest", "paper")
    if not isinstance(paper, Mapping) or not paper.get("title"):
        return Markup("")
    name, url = paper_link(paper)
    return render("run/cite", paper=paper, name=name, url=url)
