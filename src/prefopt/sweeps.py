"""Several methods, strengths and seeds on the same data with one reference cache: a table and a frontier.

Each run is a separate process, so that runs neither share random state nor threads; they share the reference cache on
disk, since the reference does not depend on the method.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefopt.config import TRAINING_ROWS, ConfigError, resolve
from prefopt.files import write_whole, writing
from prefopt.locking import FolderLock
from prefopt.modalities.fit import kind_for
from prefopt.runs.trackers import trackers_meant
from prefopt.worlds import world_of


@dataclass(frozen=True)
class Entry:
    """One method with its own overrides, as given: `dpo:ties=drop` is ("dpo", {"ties": "drop"})."""

    method: str
    options: Mapping[str, Any]
    label: str


Job = tuple[Entry, float | None, int, dict[str, Any]]


@dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        label: the method as given.
        beta: its strength; None where the method has none.
        seed: run seed.
        accuracy: share of wins ranked right, of held-out rows.
        reward: mean reward of samples, where there is a verifier.
        kl: nats a sequence on samples.
        start_reward: before training.
        output_dir: the run.
        held_out: False where nothing was held out, so that accuracy is that of training rows.
    """

    label: str
    beta: float | None
    seed: int
    accuracy: float | None
    reward: float | None
    kl: float | None
    start_reward: float | None
    output_dir: str
    held_out: bool = True


def parse_entry(text: str) -> Entry:
    """`method[:key=value[:key=value]]`."""
    from prefopt.config import parse_overrides

    method, *options = text.split(":")
    return Entry(method, parse_overrides(options), text)


def compare(
    entries: Sequence[Entry],
    common: Mapping[str, Any],
    betas: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
    workers: int,
    done: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Train every (method, beta, seed); finished runs found in `folder` are kept, not repeated.

    Args:
        entries: methods.
        common: configuration keys for all runs; model and data at least.
        betas: strengths; empty for each method's own default.
        seeds: run seeds.
        folder: one sub-folder a run.
        workers: runs at a time.
        done: called after each run.

    Raises:
        ConfigError: a configuration is wrong (found before any run starts), or a run failed.
    """
    strengths: list[float | None] = list(betas) or [None]
    jobs: list[Job] = []
    for entry, beta, seed in itertools.product(entries, strengths, seeds):
        given_beta = {} if beta is None else {"beta": beta}
        strength = "default" if beta is None else f"{beta:g}"
        name = f"{entry.label.replace(':', '-').replace('=', '-')}-beta-{strength}-seed-{seed}"
        given = {
            **common, **entry.options, **given_beta, "method": entry.method, "seed": seed,
            "output_dir": str(folder / "runs" / name),
        }  # fmt: skip
        config = resolve(given, kind_of=kind_for)[0]
        trackers_meant(config.report_to)
        if config.push_to_hub:
            raise ConfigError(
                "push_to_hub: the runs of a comparison are not uploaded. Leave it out, and upload the one to keep: prefopt push RUN"
            )
        jobs.append((entry, beta, seed, given))
    with FolderLock(folder, "comparison", "give another --output"):
        return run_all(jobs, common, folder, workers, done)


def run_all(
    jobs: Sequence[Job],
    common: Mapping[str, Any],
    folder: Path,
    workers: int,
    done: Callable[[Result], None],
) -> list[Result]:
    """The runs of a comparison; see `compare`."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    if jobs and (world := world_of(str(common.get("model", "")))) is not None:
        world.model_dir()  # once, not once a worker

    from prefopt.runs.record import finished  # which loads torch

    def one(job: Job) -> Result:
        entry, beta, seed, given = job
        run = Path(given["output_dir"])
        if not finished(run):
            with writing("a run", run.parent):
                run.parent.mkdir(parents=True, exist_ok=True)
            config = run.parent / f"{run.name}.yaml"  # the name may hold a dot (beta-0.3)
            write_whole(config, json.dumps({**given, "overwrite": True}))  # JSON is YAML
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PREFOPT_QUIET": "1"}
            process = subprocess.run(
                [sys.executable, "-m", "prefopt", "train", str(config)],
                capture_output=True,
                text=True,
                env=environment,
            )
            if process.returncode != 0:
                raise ConfigError(f"the run {run.name} failed: {process.stderr.strip().splitlines()[-1]}")
        result = read_result(entry.label, beta, seed, run)
        done(result)
        return result

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(one, jobs))
    write_whole(folder / "results.json", json.dumps([asdict(r) for r in results], indent=1))
    return results


def read_result(label: str, beta: float | None, seed: int, run: Path) -> Result:
    """Numbers of a finished run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["split"] in ("eval", TRAINING_ROWS)]
    first, last = evaluations[0], evaluations[-1]
    split = last["split"]
    return Result(
        label=label,
        beta=beta,
        seed=seed,
        accuracy=last.get(f"{split}_rewards/accuracies"),
        reward=last.get(f"{split}_reward"),
        kl=last.get(f"{split}_kl"),
        start_reward=first.get(f"{split}_reward"),
        output_dir=str(run),
        held_out=split == "eval",
    )


@dataclass(frozen=True)
class Summary:
    """Mean over seeds and half-width of the 95 % t-interval (NaN for a single seed), by quantity."""

    label: str
    beta: float | None
    seeds: int
    values: dict[str, tuple[float, float]]
    errors: dict[str, float]
    """Standard error of the mean over seeds, 0 for a single seed."""


def summarize(results: Sequence[Result]) -> list[Summary]:
    """Group by method and beta, in the order given."""
    from scipy.stats import t

    groups: dict[tuple[str, float | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.label, result.beta), []).append(result)
    out = []
    for (label, beta), members in groups.items():
        values, errors = {}, {}
        for name in ("accuracy", "reward", "kl"):
            numbers = [v for v in (getattr(r, name) for r in members) if v is not None]
            if not numbers:
                continue
            n = len(numbers)
            errors[name] = statistics.stdev(numbers) / math.sqrt(n) if n > 1 else 0.0
            half = float(t.ppf(0.975, n - 1)) * errors[name] if n > 1 else math.nan
            values[name] = (statistics.fmean(numbers), half)
        out.append(Summary(label, beta, len(members), values, errors))
    return out


def write_page(summaries: Sequence[Summary], results: Sequence[Result], folder: Path, command: str) -> Path:
    """compare.html: the frontier, and the table behind it."""
    from markupsafe import Markup

    from prefopt.report.charts import Series, scatter_lines
    from prefopt.report.page import Section, figure, page

    height = "reward" if any("reward" in s.values for s in summaries) else "accuracy"
    series: list[Series] = []
    for label in dict.fromkeys(s.label for s in summaries):
        points = sorted(
            (s for s in summaries if s.label == label and {"kl", height} <= s.values.keys()),
            key=lambda s: s.values["kl"][0],
        )
        if points:
            series.append(
                Series(
                    label=label,
                    colour="abcdef"[len(series) % 6],
                    style="dots",
                    x=[p.values["kl"][0] for p in points],
                    y=[p.values[height][0] for p in points],
                    xerr=[p.errors["kl"] for p in points],
                    yerr=[p.errors[height] for p in points],
                    names=["" if p.beta is None else f"β {p.beta:g}" for p in points],
                )
            )
    judged = accuracy_name(results)
    words = {"reward": "mean reward of samples", "accuracy": judged}[height]
    chart = scatter_lines(
        series, title="Frontier", x_label="KL to the reference (nats a sequence)", y_label=words
    )
    frontier = figure(
        f"{words.capitalize()} against KL",
        chart,
        look_for="Up and to the left is better: more for less distance from the starting model. A line joins one "
        "method's strengths; bars are one standard error over seeds (the table has 95 % t-intervals).",
        trouble="Methods compared at equal β are not compared at equal KL: read the curves at the same KL.",
    )
    head = "".join(f"<th>{name}</th>" for name in ("method", "β", "seeds", "reward", "KL", judged))
    rows = Markup("").join(
        Markup("<tr><td>{}</td><td>{}</td><td>{}</td>{}</tr>").format(
            s.label,
            "default" if s.beta is None else f"{s.beta:g}",
            s.seeds,
            Markup("").join(
                Markup("<td>{}</td>").format(shown(s, name)) for name in ("reward", "kl", "accuracy")
            ),
        )
        for s in summaries
    )
    table = Markup(
        '<div class="scroll"><table class="numbers"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(Markup(head), rows)
    starts = [r.start_reward for r in results if r.start_reward is not None]
    note = (
        Markup("<p>Before training the mean reward is {:.3f}.</p>").format(statistics.fmean(starts))
        if starts
        else Markup("")
    )
    path = folder / "compare.html"
    sections = [
        Section("frontier", "Frontier", frontier),
        Section("table", "Table", note + table),
        Section("command", "Command", Markup('<div class="code"><pre>{}</pre></div>').format(command)),
    ]
    html = page("Comparison of methods", sections, kicker="prefopt compare")
    write_whole(path, html.encode(errors="replace"), "the comparison's page")
    return path


def accuracy_name(results: Sequence[Result]) -> str:
    """What the accuracies of these runs are called: some may have nothing held out."""
    held_out = {r.held_out for r in results}
    return (
        {True: "held-out accuracy", False: "accuracy on training rows"}[all(held_out)]
        if len(held_out) == 1
        else ("accuracy (of training rows where nothing is held out)")
    )


def shown(summary: Summary, name: str) -> str:
    """`mean ± half-width`, or a dash."""
    if name not in summary.values:
        return "–"
    mean, half = summary.values[name]
    return f"{mean:.3f}" if math.isnan(half) else f"{mean:.3f} ± {half:.3f}"
