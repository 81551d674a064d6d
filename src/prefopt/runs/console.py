"""What a run says on the terminal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class Console:
    """Progress and log lines of the main process; other processes are silent.

    On a terminal: a bar with loss, margin, accuracy and time left. Elsewhere (a log file): one line a log step.
    """

    def __init__(self, main: bool) -> None:
        from rich.console import Console as RichConsole

        self.rich = RichConsole(
            stderr=True, quiet=not main or os.environ.get("PREFOPT_QUIET") == "1", highlight=False
        )
        self._progress: Any = None
        self._task: Any = None

    def say(self, text: str) -> None:
        """One line."""
        self.rich.print(text, markup=False, soft_wrap=True)

    def data(
        self, report: Mapping[str, Any], train: int, held_out: int, not_held_out: str | None = None
    ) -> None:
        """Counts of the data, and what was found in it."""
        counts = ", ".join(f"{n} {kind}" for kind, n in report["comparisons"].items() if n)
        dropped = ", ".join(f"{n} {reason}" for reason, n in report["dropped"].items())
        judged = (
            f"{held_out} held out"
            if not_held_out is None
            else f"{held_out} to judge by"
            if held_out
            else "0 held out"
        )
        self.say(f"data: {report['source']}: {counts}; {train} examples to train on, {judged}")
        if not_held_out is not None:
            self.hint("warn", not_held_out)
        if dropped:
            self.say(f"  dropped (listed in dropped.jsonl): {dropped}")
        cut = report["truncated"]
        if any(cut.values()):
            self.say(f"  truncated: {', '.join(f'{n} {side}' for side, n in cut.items())}")
        for hint in report["hints"]:
            self.hint(hint["level"], hint["text"])

    def hint(self, level: str, text: str) -> None:
        """A warning, or a note."""
        style, word = ("yellow", "warning") if level == "warn" else ("cyan", "note")
        self.rich.print(f"  [{style}]{word}:[/] ", end="")
        self.say(text)

    def first_pair(self, pair: Mapping[str, Any]) -> None:
        """The first example: decoded, so that scored tokens stand out, or as its modality writes it."""
        from rich.text import Text

        for side in pair["sides"]:
            if "segments" not in side:
                self.say(f"  {side['name']:>8}  {side.get('text', '')}")
                continue
            text = Text(
                f"  {side['name']:>8} ({side['scored']} of {side['tokens']} tokens scored)  ", style="bold"
            )
            for segment in side["segments"]:
                text.append(
                    segment["text"].replace("\n", "\\n"), style="green" if segment["scored"] else "dim"
                )
            self.rich.print(text, soft_wrap=True)

    def track(self, batches: Sequence[Any], label: str) -> Iterator[Any]:
        """A bar over batches."""
        from rich.progress import track

        yield from track(batches, description=label, console=self.rich, transient=True)

    @contextlib.contextmanager
    def bar(self, steps: int, done: int) -> Iterator[None]:
        """The training bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if not self.rich.is_terminal:
            yield
            return
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.rich,
        )
        with self._progress:
            self._task = self._progress.add_task("", total=steps, completed=done, numbers="")
            yield
        self._progress = None

    def tick(self, step: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def training(self, step: int, steps: int, line: Mapping[str, float], seconds_per_step: float) -> None:
        """Numbers of a log step."""
        numbers = "  ".join(
            f"{label} {line[key]:.4g}"
            for label, key in (
                ("loss", "loss"),
                ("margin", "rewards/margins"),
                ("accuracy", "rewards/accuracies"),
            )
            if key in line
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=step, numbers=numbers)
        else:
            left = seconds_per_step * (steps - step)
            self.say(f"step {step}/{steps}  {numbers}  {left:.0f} s left")

    def evaluation(self, step: int, values: Mapping[str, float], split: str = "held-out") -> None:
        """Numbers of held-out rows, or of training rows where nothing is held out."""
        shown = ("loss", "rewards/accuracies", "rewards/margins", "reward", "kl", "displacement")
        numbers = "  ".join(f"{name.split('/')[-1]} {values[name]:.4g}" for name in shown if name in values)
        on = "" if split == "held-out" else ", on training rows"
        self.say(f"evaluation after step {step}{on}:  {numbers}")

    def finished(self, folder: Path) -> None:
        """Where things are."""
        self.say(f"model:  {folder / 'model'}")
        self.say(f"report: {folder / 'report.html'}")
