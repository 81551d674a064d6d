"""Pairs, ties included, from the model's own answers and a rule.

    python examples/smollm2/make_pairs.py --model runs/smollm2/start --output runs/smollm2/data

For each package the model answers a few times; its maintainers' summary stands beside as one more answer. The rule
scores them all: a higher score wins, equal scores tie. Written are train.jsonl (prompt, chosen, rejected, label) and
test.jsonl (prompts of other packages, with the summary as `chosen`, for the evaluation). Nothing is fetched; packages.py
says where the descriptions come from.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from packages import Package, has_debian, packages
from rule import score

from prefopt.generation import LocalGenerator, Request, Settings, collect
from prefopt.models.loading import load_model, load_tokenizer
from prefopt.sources.mining import threshold


def chosen_packages(source: str, train: int, test: int, seed: int) -> tuple[list[Package], list[Package]]:
    """Packages to train on and to judge by, of different families, whose summary is a good answer by the rule."""
    parts: tuple[list[Package], list[Package]] = ([], [])
    families: dict[str, int] = {}
    for package in packages(source, seed):
        if score(package.prompt, package.sentence) < 1:
            continue
        part = families.setdefault(package.family, int(len(parts[1]) < test and len(families) % 3 == 0))
        if len(parts[part]) < (train, test)[part]:
            parts[part].append(package)
        if len(parts[0]) == train and len(parts[1]) == test:
            break
    return parts


def message(role: str, text: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": role, "content": text}]


def pairs(
    model: Path, chosen: list[Package], samples: int, journal: Path, seed: int, batch_size: int
) -> list[dict[str, Any]]:
    """Rows to train on."""
    generator = LocalGenerator(
        load_model(str(model), trainable=False).model, load_tokenizer(str(model)), batch_size
    )
    requests = [Request(p.name, message("user", p.prompt), n=samples) for p in chosen]
    answers: dict[str, list[str]] = {p.name: [p.sentence] for p in chosen}
    for answer in collect(
        generator, requests, Settings(max_new_tokens=48, temperature=0.7, seed=seed), journal
    ):
        if answer.text:
            answers[answer.id].append(answer.text)
    candidates = [
        {
            "id": p.name,
            "prompt": message("user", p.prompt),
            "candidates": [
                {"text": message("assistant", text), "score": score(p.prompt, text)}
                for text in answers[p.name]
            ],
        }
        for p in chosen
    ]
    return threshold(candidates, eps=0.0).rows


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("runs/smollm2/start"))
    parser.add_argument("--output", type=Path, default=Path("runs/smollm2/data"))
    parser.add_argument("--source", choices=("auto", "debian", "python"), default="auto")
    parser.add_argument("--packages", type=int, default=120, help="to train on")
    parser.add_argument("--test", type=int, default=48, help="packages held out")
    parser.add_argument("--samples", type=int, default=2, help="answers of the model to each")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    source = ("debian" if has_debian() else "python") if given.source == "auto" else given.source
    train, test = chosen_packages(source, given.packages, given.test, given.seed)
    if len(train) < given.packages or len(test) < given.test:
        print(
            f"only {len(train)} and {len(test)} packages of this machine are usable ({source}; see packages.py)"
        )
    journal = given.output / "answers.journal.jsonl"
    rows = pairs(given.model, train, given.samples, journal, given.seed, given.batch_size)
    write(given.output / "train.jsonl", rows)
    write(
        given.output / "test.jsonl",
        (
            {"id": p.name, "prompt": message("user", p.prompt), "chosen": message("assistant", p.sentence)}
            for p in test
        ),
    )
    ties = sum(row["label"] == "tie" for row in rows)
    print(
        f"{source}: {len(rows)} pairs of {len(train)} packages, {ties} of them ties; {len(test)} packages held out"
    )


if __name__ == "__main__":
    main()
