"""What a method of several runs leaves at its top: what its stages record, in a row, as they record it.

The stages' own files stay as they are. All that is made here follows from them, so a folder whose top is behind its
stages, or has none of this, catches up when it is resumed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.config import TRAINING_ROWS
from prefopt.runs.record import Record, add_samples, last_metrics, read_lines
from prefopt.sources.report import Dropped

COUNTERS = ("step", "epoch", "num_tokens")
"""What counts on from stage to stage in the lines of metrics.jsonl."""
SAMPLING = ("tokens_per_second", "sampled_tokens", "sampling_seconds", "judging_seconds", "waited_seconds")
"""What is known of how the answers of a stage came about, in a line of its own before those of its run."""
OWN = frozenset({
    "prefopt", "run_name", "status", "started", "finished", "duration_s", "non_default", "method", "modality", "title", "summary",
    "paper", "seed", "command",
})  # fmt: skip
"""Entries of a manifest that are the method's own, not made of those of its stages."""
OF_A_STAGE = frozenset({"stopped_early", "best_step", "extended"})
"""Entries that are true of one run only: of the first stage they would be read as the whole's."""
PARTS = ("data", "first_pair", "margins", "samples", "manifest")
"""Records that the whole has, too."""


@dataclass
class Stage:
    """A run that is one of several, as its record tells it; a `Follower` of it.

    Attributes:
        whole: told in turn.
        name: of the stage.
        folder: of its run.
        found: what is known of the stage besides what its run records.
        start: value of each counter where it begins.
        own: lines of its metrics.jsonl, as they stand in that of the whole.
        measured: what was measured of its model when it had finished.
        parts: its records by name.
    """

    whole: Whole
    name: str
    folder: Path
    found: Mapping[str, Any]
    start: Mapping[str, float]
    own: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its lines in the metrics.jsonl of the whole: how its answers were sampled, its run's, what was measured after it."""
        counted = {"step": self.start.get("step", 0), "epoch": self.start.get("epoch", 0.0)}
        sampling = {name: self.found[name] for name in SAMPLING if name in self.found}
        before = [{**counted, "split": "generation", "stage": self.name, **sampling}] if sampling else []
        if not self.measured:
            return before + self.own
        ends = self.own[-1] if self.own else before[-1] if before else counted
        last = {"step": ends["step"], "epoch": ends["epoch"], "split": "eval", "stage": self.name}
        return [
            *before,
            *self.own,
            {**last, **{f"eval_{name}": value for name, value in self.measured.items()}},
        ]

    def measure(self, values: Mapping[str, float]) -> None:
        """Note what was measured of its model, when its run has finished."""
        self.measured = dict(values)
        self.whole.relog()
        self.whole.note("manifest")

    def noted(self, name: str, value: Any) -> None:
        """See `Follower`."""
        self.parts[name] = value
        self.whole.note(name)

    def logged(self, line: Mapping[str, Any]) -> None:
        """See `Follower`."""
        self.own.append(in_a_row(line, self.name, self.start))
        self.whole.record.log(self.own[-1])
        if line["split"] != "train":
            self.whole.note("manifest")

    def relogged(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """See `Follower`."""
        self.own = [in_a_row(line, self.name, self.start) for line in lines]
        self.whole.relog()

    def replay(self) -> None:
        """Tell what a run that has finished recorded."""
        self.relogged(read_lines(self.folder / "metrics.jsonl"))
        for name in PARTS:
            path = self.folder / "record" / f"{name}.json"
            if path.exists():
                self.noted(name, json.loads(path.read_text("utf-8")))

    @property
    def row(self) -> dict[str, Any]:
        """The stage in one level: its name, how far it has come, what was found and measured."""
        manifest = self.parts.get("manifest", {})
        told = {name: manifest[name] for name in ("method", "status", "steps") if name in manifest}
        if stop := manifest.get("stopped_early"):
            told |= {
                "steps": stop["step"],
                "planned_steps": manifest["steps"],
                "stopped_early": stop["reason"],
            }
        row = {"stage": self.name, **told, **self.found, **shown(last_metrics(self.own)), **self.measured}
        waited, trained = row.get("waited_seconds"), manifest.get("duration_s")
        if waited is not None and trained is not None:
            row["waited_share"] = waited / max(waited + trained, 1e-9)
        return row


class Whole:
    """The record of a method, made of its stages'.

    Args:
        record: of the method's folder.
        told: a sentence or two on what the stages are.
        examples: rows of the data that are trained on.
        dropped: rows of the data that could not be used.
    """

    def __init__(self, record: Record, told: str, examples: int, dropped: Path) -> None:
        self.record, self.told, self.examples = record, told, examples
        self.dropped = read_dropped(dropped)
        self.stages: list[Stage] = []

    def begin(self, name: str, folder: Path, found: Mapping[str, Any]) -> Stage:
        """The next stage, of which nothing is known yet but what was found before it."""
        lines = self.lines
        start = {counter: max((line.get(counter, 0) for line in lines), default=0) for counter in COUNTERS}
        stage = Stage(self, name, folder, found, start)
        self.stages.append(stage)
        self.relog()
        return stage

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return [line for stage in self.stages for line in stage.lines]

    def relog(self) -> None:
        """Make metrics.jsonl what the stages say."""
        lines = self.lines
        if lines != self.record.history:
            self.record.relog(lines)

    def note(self, name: str) -> None:
        """Make a record what the stages say."""
        first, last = self.stages[0], self.stages[-1]
        if name == "manifest":
            runs = [stage.row for stage in self.stages]
            self.record.manifest(**self.manifest(), stages={"told": self.told, "runs": runs})
        elif name == "samples":
            self.record.json(name, samples_in_a_row(self.stages))
        elif name == "margins":
            found = [stage.parts[name] for stage in self.stages if name in stage.parts]
            self.record.json(name, margins_in_a_row(found))
        elif first is last and name == "first_pair":
            self.record.json(name, first.parts[name])
        elif first is last and name == "data":
            self.record.data(*self.data(first))

    def data(self, first: Stage) -> tuple[dict[str, Any], list[Dropped]]:
        """The data report of the first stage as that of the method, and all rows that could not be used."""
        report: dict[str, Any] = dict(first.parts["data"])
        dropped = [*self.dropped, *read_dropped(first.folder / "dropped.jsonl")]
        source = Path(report["source"])
        if source.is_relative_to(self.record.folder):
            report["source"] = source.relative_to(self.record.folder).as_posix()
        report["dropped"] = dict(Counter(drop.reason for drop in dropped).most_common())
        report["hints"] = [{"level": "note", "text": self.told}, *report["hints"]]
        return report, dropped

    def manifest(self) -> dict[str, Any]:
        """What the stages' manifests come to: start and data of the first, sums, and the largest need of memory."""
        found = {stage.name: stage.parts["manifest"] for stage in self.stages if "manifest" in stage.parts}
        manifests = list(found.values())
        facts = {
            name: value for name, value in next(iter(manifests), {}).items() if name not in OWN | OF_A_STAGE
        }
        if "data" in facts:
            facts["data"] = {**facts["data"], "source": self.record.config.data, "examples": self.examples}
        facts |= {
            name: sum(taken(m, name) for m in manifests) for name in ("steps", "epochs") if name in facts
        }
        if any("stopped_early" in m for m in manifests):
            facts["stopped_early"] = None  # the rows of the stages tell
        if manifests:
            best = manifests[-1].get("best_step")
            facts["best_step"] = (
                None if best is None else self.stages[len(found) - 1].start.get("step", 0) + best
            )
        facts["checks"] = [
            {**check, "stage": name} for name, m in found.items() for check in m.get("checks", [])
        ]
        if peaks := [m["peak_memory_bytes"] for m in manifests if m.get("peak_memory_bytes") is not None]:
            facts["peak_memory_bytes"] = max(peaks)
        if forecasts := [m["memory_forecast"] for m in manifests if "memory_forecast" in m]:
            facts["memory_forecast"] = max(forecasts, key=lambda parts: sum(p["bytes"] for p in parts))
        return facts

    @property
    def seconds(self) -> float:
        """How long the stages trained."""
        return sum(stage.parts.get("manifest", {}).get("duration_s", 0.0) for stage in self.stages)


def taken(manifest: Mapping[str, Any], counter: str) -> float:
    """Steps or epochs of a run, taken or still to take: fewer than planned where it ended early.

    Example:
        >>> run = {"steps": 8, "epochs": 2.0, "stopped_early": {"step": 2, "reason": "enough"}}
        >>> taken(run, "steps"), taken(run, "epochs"), taken({"steps": 8}, "steps")
        (2, 0.5, 8)
    """
    planned: float = manifest.get(counter, 0)
    stop = manifest.get("stopped_early")
    if not stop:
        return planned
    return stop["step"] if counter == "steps" else planned * stop["step"] / manifest["steps"]


def in_a_row(line: Mapping[str, Any], stage: str, start: Mapping[str, float]) -> dict[str, Any]:
    """A stage's line of metrics.jsonl as one of the whole: its counters count on.

    Example:
        >>> in_a_row({"step": 2, "epoch": 0.5, "split": "train", "loss": 0.6}, "1", {"step": 16, "epoch": 2.0})
        {'step': 18, 'epoch': 2.5, 'split': 'train', 'stage': '1', 'loss': 0.6}
    """
    counted = {name: line[name] + start.get(name, 0) for name in COUNTERS if line.get(name) is not None}
    if "epoch" in counted:
        counted["epoch"] = round(counted["epoch"], 4)
    moved = {**line, **counted}
    head: dict[str, Any] = {name: moved[name] for name in ("step", "epoch", "split") if name in moved}
    return {**head, "stage": stage, **moved}


def margins_in_a_row(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Before training those of the first stage, after it those of the last that has come to its end."""
    merged: dict[str, Any] = {}
    for margins in found:
        merged |= margins
    return {**merged, "before": found[0]["before"]}


def samples_in_a_row(stages: Iterable[Stage]) -> dict[str, Any]:
    """Samples of before the first stage and of after each; of a stage that has its own prompts, also of before it."""
    entries: list[dict[str, Any]] = []
    settings: Mapping[str, Any] = {}
    known = [stage for stage in stages if "samples" in stage.parts]
    # all starts, then all ends: where the same step was drawn twice on the same prompt, the end of a stage stays
    for end in (0, -1):
        for stage in known:
            settings = stage.parts["samples"]["settings"]
            rows = [row for row in stage.parts["samples"]["prompts"] if len(row["generations"]) > -end]
            moments = [sorted(row["generations"], key=lambda g: g["step"])[end] for row in rows]
            told = [relabelled(moment, stage, first=stage is known[0]) for moment in moments]
            add_samples(entries, [row["prompt"] for row in rows], told)
    for entry in entries:
        entry["generations"].sort(key=lambda g: g["step"])
    return {"settings": settings, "prompts": entries}


def relabelled(sample: Mapping[str, Any], stage: Stage, first: bool) -> dict[str, Any]:
    """A sample of a stage with its step and label in the whole."""
    step = int(sample["step"] + stage.start.get("step", 0))
    ends = {
        "before": "before" if first else f"before stage {stage.name}",
        "after": f"after stage {stage.name}",
    }
    return {**sample, "step": step, "label": ends.get(sample["label"], f"step {step}")}


def shown(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a run that a row of stages shows."""
    names = ("reward", "rewards/accuracies", "displacement", "kl", "sample_length", "sample_repetition")
    split = TRAINING_ROWS if any(name.startswith(TRAINING_ROWS) for name in metrics) else "eval"
    kept = {name: metrics[f"{split}_{name}"] for name in names if f"{split}_{name}" in metrics}
    if split == TRAINING_ROWS and "rewards/accuracies" in kept:
        kept["training_accuracies"] = kept.pop("rewards/accuracies")
    if f"start_{split}_reward" in metrics:
        kept["start_reward"] = metrics[f"start_{split}_reward"]
    return kept


def read_dropped(path: Path) -> list[Dropped]:
    """What `write_dropped` wrote; nothing where it has not."""
    if not path.exists():
        return []
    return [Dropped(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
