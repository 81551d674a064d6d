"""Evaluations of several seeds as one table: means, and 95 % intervals over the seeds.

    python examples/smollm2/over_seeds.py runs/smollm2/evaluation/lora-*

Each folder was written by `prefopt evaluate`. The interval is Student's, of the mean over seeds: other training orders,
other samples, the same prompts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).parent))
from rule import score

STUDENT = {
    2: 12.71,
    3: 4.30,
    4: 3.18,
    5: 2.78,
    6: 2.57,
    7: 2.45,
    8: 2.36,
    9: 2.31,
    10: 2.26,
}  # 97.5 %, by seeds


def figures(folder: Path) -> dict[str, float]:
    """What one evaluation says."""
    summary = json.loads((folder / "evaluation.json").read_text())
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]

    def good(side: str) -> float:
        return 100 * fmean(score(row["prompt"][-1]["content"], row[side]) == 1 for row in rows)

    after, before = good("answer"), good("baseline")
    return {
        "win rate, %": summary["win_rate"]["value"],
        "good answers, %": after,
        "good answers of the start, %": before,
        "gain": after - before,
        "displacement, %": 100 * (summary["displacement"] or 0.0),
        "characters": summary["characters"]["model"],
        "characters of the start": summary["characters"]["baseline"],
    }


def main() -> None:
    found = [figures(Path(name)) for name in sys.argv[1:]]
    if not found:
        raise SystemExit(__doc__)
    for name in found[0]:
        values = [one[name] for one in found]
        half = (
            STUDENT[len(values)] * stdev(values) / len(values) ** 0.5
            if len(values) in STUDENT
            else float("nan")
        )
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:30} {fmean(values):6.1f} ± {half:.1f}   ({each})")


if __name__ == "__main__":
    main()
