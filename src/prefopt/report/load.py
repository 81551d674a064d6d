"""Reading a run folder, whatever state it is in.

Files read: `config.yaml`, `metrics.jsonl`, and under `record/`: `manifest.json`, `data.json`, `first_pair.json`,
`margins.json`, `samples.json`, and those that only runs of one modality have (`Account.records`). Any other file that is
absent, and any that is unreadable, becomes an empty value and a sentence in `Run.missing`; nothing here raises on bad
content, because a report is most needed when a run went wrong. Pictures are read by `pictures.py`, as the page needs them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prefopt.config import TRAINING_ROWS
from prefopt.report.format import is_number

PARTS = frozenset({"manifest", "config", "data", "first_pair", "margins", "samples"})
"""What every run records."""


class Points(NamedTuple):
    """One metric over steps; `values` may hold NaN."""

    steps: list[float]
    values: list[float]

    def finite(self) -> Points:
        """The points whose value is finite."""
        kept = [(s, v) for s, v in zip(*self, strict=True) if math.isfinite(v)]
        return Points([s for s, _ in kept], [v for _, v in kept])

    def since(self, step: float) -> Points:
        """The points from a step on."""
        kept = [(s, v) for s, v in zip(*self, strict=True) if s >= step]
        return Points([s for s, _ in kept], [v for _, v in kept])


@dataclass(frozen=True)
class Metrics:
    """The lines of `metrics.jsonl`, by split, then metric name (without `eval_`), then step.

    A step that was logged twice (a resumed run repeats steps since its last checkpoint) keeps its later value.
    """

    values: Mapping[str, Mapping[str, Mapping[float, float]]]

    def points(self, name: str, split: str) -> Points:
        """All values of a metric, ordered by step; empty where it was never logged."""
        series = self.values.get(split, {}).get(name, {})
        steps = sorted(series)
        return Points(steps, [series[step] for step in steps])

    def ends(self, name: str, split: str) -> tuple[float | None, float | None]:
        """First and last finite value; the first is None where there is only one."""
        values = self.points(name, split).finite().values
        return (values[0] if len(values) > 1 else None, values[-1] if values else None)

    def names(self) -> list[str]:
        """Every metric that was logged in either split, in order of appearance."""
        return list(dict.fromkeys(name for split in self.values.values() for name in split))

    def without(self, names: frozenset[str]) -> Metrics:
        """The same but for some names."""
        return Metrics(
            {
                split: {name: values for name, values in series.items() if name not in names}
                for split, series in self.values.items()
            }
        )

    def last_step(self) -> float | None:
        """The highest step logged."""
        return max(
            (step for split in self.values.values() for s in split.values() for step in s), default=None
        )


@dataclass(frozen=True)
class Run:
    """All that a report knows about a run. Every mapping may be empty, every entry absent."""

    folder: Path
    config: Mapping[str, Any]
    metrics: Metrics
    manifest: Mapping[str, Any]
    data: Mapping[str, Any]
    first_pair: Mapping[str, Any]
    margins: Mapping[str, Any]
    samples: Mapping[str, Any]
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Records that only runs of one modality have, by name."""
    missing: list[str] = field(default_factory=list)
    """One sentence for each file that could not be used."""
    model: str = "model"
    """Folder within the run's of the model that is told of."""
    published: str = ""
    """Where its model is on the hub, for readers who have that and not the run's folder; empty: they have the folder."""

    @property
    def model_dir(self) -> Path:
        """The model's folder."""
        return self.folder / self.model

    @property
    def name(self) -> str:
        """The run's name, the folder's where the manifest gives none."""
        return str(self.manifest.get("run_name") or self.folder.resolve().name)

    @property
    def online(self) -> bool:
        """True where the run makes the comparisons it trains on: no pairs in the data, nothing held out."""
        kinds = self.data.get("comparisons")
        if isinstance(kinds, Mapping):
            return "prompts" in kinds  # others take their winners from rows, of which some are held out
        return any(name.startswith("collect/") for name in self.metrics.names())

    @property
    def not_held_out(self) -> str | None:
        """Why evaluations looked at training rows, in a sentence; None where they looked at held-out ones."""
        said = self.of("manifest", "data", "not_held_out")
        if said or self.of("manifest", "data", "eval_examples") != 0 or self.online:
            return said or None
        return "nothing is held out"  # as older folders say it

    @property
    def place(self) -> str:
        """What evaluations looked at, in a word: "held-out" or "training"."""
        return "held-out" if self.not_held_out is None else "training"

    @property
    def split(self) -> str:
        """Which lines to judge the run by: "eval" where anything was evaluated, else "train"."""
        evaluated = self.metrics.values.get("eval", {})
        return "eval" if any(name in evaluated for name in ("loss", "rewards/accuracies")) else "train"

    def of(self, part: str, *path: str) -> Any:
        """The entry at `path` of a part ("manifest", "data", ...), or None where any step of it is absent."""
        value: Any = self.others.get(part) if part not in PARTS else getattr(self, part)
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_run(run_dir: str | Path) -> Run:
    """Read what there is of a run folder.

    Raises:
        FileNotFoundError: `run_dir` is not a folder.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no run folder at {folder}; give the folder that holds config.yaml and metrics.jsonl"
        )
    missing: list[str] = []

    def mapping(relative: str, what: str) -> Mapping[str, Any]:
        return _mapping(folder, relative, what, missing)

    return Run(
        folder=folder,
        manifest=mapping("record/manifest.json", "the run's identity, its checks and its machine"),
        config=mapping("config.yaml", "the configuration"),
        metrics=_read_metrics(folder / "metrics.jsonl", missing),
        margins=mapping("record/margins.json", "the margins before and after"),
        first_pair=mapping("record/first_pair.json", "the first decoded pair"),
        samples=mapping("record/samples.json", "generations before and after"),
        data=mapping("record/data.json", "the data report"),
        missing=missing,
    )


def read_record(folder: Path, name: str, what: str, missing: list[str]) -> Mapping[str, Any]:
    """One file record/NAME.json.

    Args:
        folder: of the run.
        name: of the record.
        what: it holds, in words.
        missing: gets a sentence where the file cannot be used.
    """
    return _mapping(folder, f"record/{name}.json", what, missing)


def _mapping(folder: Path, relative: str, what: str, missing: list[str]) -> Mapping[str, Any]:
    try:
        text = (folder / relative).read_text(encoding="utf-8", errors="replace")
    except OSError:
        missing.append(f"{relative} is not there: {what} cannot be shown.")
        return {}
    try:
        value = _parse_yaml(text) if relative.endswith(".yaml") else json.loads(text)
    except ValueError as error:
        missing.append(f"{relative} cannot be read ({error}): {what} cannot be shown.")
        return {}
    if not isinstance(value, Mapping):
        missing.append(f"{relative} holds {type(value).__name__}, not a mapping: {what} cannot be shown.")
        return {}
    return value


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _read_metrics(path: Path, missing: list[str]) -> Metrics:
    values: dict[str, dict[str, dict[float, float]]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        missing.append("metrics.jsonl is not there: the curves cannot be shown.")
        return Metrics(values)
    unreadable = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step, split = float(entry["step"]), str(entry.get("split", "train"))
            if not math.isfinite(step):
                raise ValueError("step is not a number")
            for name, value in entry.items():
                bare = name.removeprefix(f"{split}_") if split in ("eval", TRAINING_ROWS) else name
                if value is None and bare in ("loss", "grad_norm"):
                    value = math.nan  # strict JSON has no NaN; elsewhere null means "not measured"
                if is_number(value) and name not in ("step", "epoch"):
                    # evaluations are drawn alike wherever their rows come from; `Run.place` says what to call them
                    values.setdefault("eval" if split == TRAINING_ROWS else split, {}).setdefault(bare, {})[
                        step
                    ] = float(value)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            unreadable += 1
    if unreadable:
        missing.append(
            f"metrics.jsonl: {unreadable} of {len(lines)} lines cannot be read and are left out "
            "(a run killed while writing leaves half a line)."
        )
    return Metrics(values)
