"""The run's folder: configuration, metrics, and the records that the report is made of.

config.yaml  metrics.jsonl  dropped.jsonl  report.html  README.md  model/  merged/  checkpoints/
record/{manifest,data,first_pair,margins,samples,...}.json; of several runs in a row also stages/
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from prefopt.config import TRAINING_ROWS, ConfigError, TrainConfig, dump
from prefopt.files import GO_ON, append_whole, write_whole, writing
from prefopt.locking import FolderLock
from prefopt.png import as_levels, as_png
from prefopt.sources.report import Dropped, write_dropped
from prefopt.version import __version__

OURS = (
    "stages",
    "stages.json",  # of older folders
    "metrics.jsonl",
    "dropped.jsonl",
    "report.html",
    "README.md",
    "merged",
    "model",
    "checkpoints",
    "record",
    "config.yaml",
)
"""What goes when a run is replaced, in this order: while the configuration is there, nothing begins beside the remains."""


class Follower(Protocol):
    """Whoever is told what a run records, as it does."""

    def noted(self, name: str, value: Any) -> None:
        """record/NAME.json holds this now."""
        ...

    def logged(self, line: Mapping[str, Any]) -> None:
        """A line was added to metrics.jsonl."""
        ...

    def relogged(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """These are all lines of metrics.jsonl now."""
        ...


class Record:
    """The run's folder; on processes other than the main one it only remembers. Nothing is written before `open`.

    Args:
        folder: of the run.
        config: resolved configuration.
        hyper: objective hyper-parameters.
        main: whether this process writes.
        resuming: keep what is there.
        lock: of the folder; None where nobody else can know of it.
        follower: told what is recorded.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        hyper: Mapping[str, Any],
        main: bool,
        resuming: bool,
        lock: FolderLock | None = None,
        follower: Follower | None = None,
    ) -> None:
        self.lock, self.follower = lock, follower
        self.folder, self.config, self.hyper, self.main, self.resuming = folder, config, hyper, main, resuming
        self.history: list[dict[str, Any]] = []
        self.opened = False
        self._memory: dict[str, Any] = {}

    def claim(self) -> None:
        """Make the folder and hold it against other runs.

        Raises:
            ConfigError, ValueError: another run has or had it meanwhile.
            WriteError: it cannot be written.
        """
        if self.lock is None or self.lock.held or not self.main:
            return
        self.lock.take()
        if (self.folder / "config.yaml").exists():
            raise ConfigError(f"another run has just written to {self.folder}: give another output_dir")

    @property
    def date(self) -> str | None:
        """The date that the chat template prints, if it prints one, as text."""
        return None if self.config.template_date is None else self.config.template_date.isoformat()

    def dated(self, day: datetime.date) -> None:
        """Note the date that the chat template printed: it is part of the configuration from now on."""
        self.config = self.config.model_copy(update={"template_date": day})

    def open(self) -> None:
        """Create or take over the folder; an old run in it is removed only now, if so configured.

        Raises:
            WriteError: the folder cannot be written.
        """
        self.opened = True
        if self.main:
            self._make_folder()
        config = self.config
        self.manifest(
            prefopt=__version__,
            run_name=config.run_name or self.folder.name,
            status="running",
            started=self._memory.get("manifest", {}).get("started") or now(),
            non_default=sorted(
                [
                    k
                    for k, f in TrainConfig.model_fields.items()
                    if not f.is_required() and getattr(config, k) != f.default
                ]
                + list(self.hyper)
            ),
        )

    def _make_folder(self) -> None:
        folder = self.folder
        with writing("the run", folder, "give another output_dir, free some space or fix the permissions"):
            folder.mkdir(parents=True, exist_ok=True)
            # only what a run writes: anything else in the folder is the user's. A run that is resumed without a checkpoint
            # starts over, and its lines with it
            gone = OURS if self.config.overwrite else ("metrics.jsonl",) if self.config.resume else ()
            for name in () if self.resuming else gone:
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            (folder / "record").mkdir(exist_ok=True)
            if not self.resuming:
                write_whole(folder / "config.yaml", dump(self.config, self.hyper))
        if self.resuming:
            for path in (folder / "record").glob("*.json"):
                self._memory[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            self._memory.get("manifest", {}).pop("checks", None)

    def reconfigure(self) -> None:
        """Write the configuration anew: the run is longer than it was begun."""
        if self.main:
            plainly = {"resume": False, "extend": False, "overwrite": False}
            write_whole(self.folder / "config.yaml", dump(self.config.model_copy(update=plainly), self.hyper))

    def json(self, name: str, value: Any) -> None:
        """Write record/NAME.json."""
        self._memory[name] = value
        if self.main:
            path = self.folder / "record" / f"{name}.json"
            write_whole(path, json.dumps(plain(value), indent=1, ensure_ascii=False), advice=GO_ON)
        if self.follower is not None:
            self.follower.noted(name, value)

    def read(self, name: str) -> Any:
        """A record written before."""
        return self._memory[name]

    def has(self, name: str) -> bool:
        """Whether a record of this name was written, in this run or before it was resumed."""
        return name in self._memory

    def manifest(self, **values: Any) -> None:
        """Add to the manifest."""
        merged = {**self._memory.get("manifest", {}), **values}
        if values.get("status", "running") != "running":
            merged["finished"] = now()
        self.json("manifest", merged)

    def check(self, name: str, status: str, detail: str) -> None:
        """Note a start-of-run check."""
        checks = self._memory.get("manifest", {}).get("checks", [])
        self.manifest(checks=[*checks, {"name": name, "status": status, "detail": detail}])

    def data(self, report: Mapping[str, Any], dropped: list[Dropped]) -> None:
        """The data report and the rows that could not be used."""
        if self.main:
            write_dropped(dropped, self.folder / "dropped.jsonl", GO_ON)
        self.json("data", dict(report))

    def margins(self, when: str, margins: Mapping[str, list[float]], split: str) -> None:
        """Distribution of reward margins before or after."""
        unit = "beta * (rho_w - rho_l), nats"
        self.add("margins", **{when: dict(margins), "split": split, "unit": unit})

    def add(self, name: str, **values: Any) -> None:
        """Add to record/NAME.json."""
        self.json(name, {**self._memory.get(name, {}), **values})

    def samples(
        self, settings: Mapping[str, Any], prompts: Sequence[str], drawn: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add one sample a prompt to record/samples.json; a step drawn again (after a resume) replaces the old one.

        Prompts that a resumed run no longer draws on stay as they are, new ones come behind.

        Args:
            settings: of the sampling.
            prompts: as a reader sees them.
            drawn: one mapping a prompt, each with a "step".
        """
        entries = list(self._memory.get("samples", {}).get("prompts", ()))
        add_samples(entries, prompts, drawn)
        self.json("samples", {"settings": dict(settings), "prompts": entries})

    def picture(self, name: str, picture_CHW: Tensor) -> str:
        """Write a picture in [0, 1] as record/images/NAME.png; returns its path within the folder."""
        return self._picture(name, lambda: as_png(as_levels(picture_CHW)))

    def picture_file(self, name: str, image: Any) -> str:
        """The same of a Pillow image."""
        import numpy as np

        return self._picture(name, lambda: as_png(np.asarray(image)))

    def _picture(self, name: str, encoded: Callable[[], bytes]) -> str:
        path = Path("record", "images", f"{name}.png")
        if self.main:
            with writing("a picture", self.folder, GO_ON):
                (self.folder / path.parent).mkdir(exist_ok=True)
            write_whole(self.folder / path, encoded(), advice=GO_ON)
        return path.as_posix()

    def metrics(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl."""
        self.log({"step": step, "epoch": round(epoch, 4), "split": split, **plain(values)})

    def log(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl as it is."""
        self.history.append(line)
        if self.main:
            append_whole(self.folder / "metrics.jsonl", json.dumps(line) + "\n", "a line of metrics.jsonl")
        if self.follower is not None:
            self.follower.logged(line)

    def relog(self, lines: Sequence[dict[str, Any]]) -> None:
        """Make these the lines of metrics.jsonl."""
        self.history = list(lines)
        if self.main:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            write_whole(self.folder / "metrics.jsonl", text, advice=GO_ON)
        if self.follower is not None:
            self.follower.relogged(lines)

    def rewind(self, step: float) -> None:
        """On resume: forget log lines after the checkpoint's step, which will be written again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            self.relog([line for line in read_lines(path) if line["step"] <= step])

    def last_metrics(self) -> dict[str, float]:
        """See the function."""
        return last_metrics(self.history)


def add_samples(
    entries: list[dict[str, Any]], prompts: Sequence[str], drawn: Sequence[Mapping[str, Any]]
) -> None:
    """Add one sample a prompt to the entries of record/samples.json; see `Record.samples`."""
    known: dict[
        str, list[dict[str, Any]]
    ] = {}  # texts may repeat: conditions differ by more than what is shown
    for entry in entries:
        known.setdefault(entry["prompt"], []).append(entry)
    for prompt, sample in zip(prompts, drawn, strict=True):
        if known.get(prompt):
            entry = known[prompt].pop(0)
        else:
            entry = {"prompt": prompt, "generations": []}
            entries.append(entry)
        kept = [x for x in entry["generations"] if x["step"] != sample["step"]]
        entry["generations"] = [*kept, dict(sample)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, but for one that was being written when its run died."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def last_metrics(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Newest value of every metric, and the first evaluation's as `start_*`."""
    out: dict[str, float] = {}
    for line in history:
        out |= {k: v for k, v in line.items() if k not in ("split", "stage")}
    first = next((line for line in history if line["split"] in ("eval", TRAINING_ROWS)), {})
    out |= {f"start_{k}": v for k, v in first.items() if k.startswith(("eval_", f"{TRAINING_ROWS}_"))}
    return out


def finished(folder: Path) -> bool:
    """Whether a run's folder says that it came to its end."""
    try:
        return bool(json.loads((folder / "record" / "manifest.json").read_text())["status"] == "finished")
    except (OSError, ValueError, KeyError):
        return False


def plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of everything a result depends on."""
    names = (
        *(
            "torch",
            "transformers",
            "diffusers",
            "accelerate",
            "peft",
            "datasets",
            "tokenizers",
            "safetensors",
        ),
        *("numpy", "pillow"),
    )
    return {name: metadata.version(name) for name in names}
