"""Comparisons from the docstrings of Python's own standard library.

    python examples/docstrings/make_pairs.py --output runs/docstrings/data

Writes train.jsonl, test.jsonl (rows of prompt, chosen, rejected, label, source) and corpus.txt (texts to pretrain on,
training modules only). A function's signature is the prompt.

- Wins: its own docstring against one of similar length from the same module. Functions are matched in twos and both
  rows are written, so every text is as often rejected as chosen: a model that does not read the signature is right
  exactly half of the time.
- Ties: its own docstring against the same in words that change nothing ("Return" for "Returns").

Whole modules are held out. Source files are parsed, never imported.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "turtledemo"}
SAME_MEANING = [
    (r"^Return\b", "Returns"),
    (r"^Returns\b", "Return"),
    (r"^Create\b", "Creates"),
    (r"^Get\b", "Gets"),
    (r"^Set\b", "Sets"),
    (r"\.$", ""),
]
TOO_CLOSE = 0.5
"""Share of common words from which a held-out text counts as a copy of a training text."""


class Function(NamedTuple):
    """A documented function of the standard library."""

    module: str
    """Top-level module or package: what is held out as a whole."""
    signature: str
    """Class, name and arguments."""
    text: str
    """First paragraph of the docstring, on one line."""


def functions() -> list[Function]:
    """Documented functions in the order of the files, each signature and each text once."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Function] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED & set(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # a few files are wrong on purpose
        for signature, docstring in documented(tree, ""):
            text = " ".join(docstring.split("\n\n")[0].split())
            if 15 <= len(text) <= 160:
                found.setdefault(text.lower(), Function(parts[0], signature, text))
    return list({function.signature: function for function in found.values()}.values())


def documented(node: ast.AST, owner: str) -> Iterator[tuple[str, str]]:
    """(signature, docstring) of the functions below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from documented(child, f"{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            if docstring := ast.get_docstring(child):
                yield f"{owner}{child.name}({ast.unparse(child.args)[:80]})", docstring
        else:
            yield from documented(child, owner)  # functions within an `if` or a `try`


def split(known: list[Function], rng: random.Random) -> tuple[list[Function], list[Function]]:
    """Training and held-out functions: one module in five is held out, less what training texts nearly repeat."""
    modules = sorted({function.module for function in known})
    held_out = set(rng.sample(modules, len(modules) // 5))
    train = [function for function in known if function.module not in held_out]
    seen = [words(function.text) for function in train]

    def is_new(function: Function) -> bool:
        own = words(function.text)
        return all(len(own & other) < TOO_CLOSE * len(own | other) for other in seen)

    return train, [function for function in known if function.module in held_out and is_new(function)]


def words(text: str) -> frozenset[str]:
    """Words of a text in lower case."""
    return frozenset(re.findall(r"[a-z]+", text.lower()))


def reworded(text: str) -> str | None:
    """The same statement in slightly other words, or None."""
    for pattern, replacement in SAME_MEANING:
        if re.search(pattern, text):
            return re.sub(pattern, replacement, text)
    return None


def matches(known: list[Function], rng: random.Random) -> Iterator[tuple[Function, Function]]:
    """Functions in twos: of one module, of similar length; where their number is odd, one is left out."""
    by_length = sorted(known, key=lambda function: (function.module, len(function.text) + rng.uniform(0, 20)))
    for _, same_module in itertools.groupby(by_length, key=lambda function: function.module):
        together = list(same_module)
        yield from zip(together[::2], together[1::2], strict=False)


def make_rows(known: list[Function], rounds: int, rng: random.Random) -> Iterator[dict[str, str]]:
    """Wins from `rounds` matchings, then a tie for one function in three."""

    def row(function: Function, other: str, label: str) -> dict[str, str]:
        sides = {"prompt": f"{function.signature}\n", "chosen": function.text, "rejected": other}
        return {**sides, "label": label, "source": function.module}

    for _ in range(rounds):
        for one, other in matches(known, rng):
            yield row(one, other.text, "win")
            yield row(other, one.text, "win")
    for function in known[::3]:
        if same := reworded(function.text):
            yield row(function, same, "tie")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make comparisons from the standard library's docstrings.")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument(
        "--rounds", type=int, default=4, help="texts that each training function is matched with"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    train, test = split(functions(), rng)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, part, rounds in (("train", train, arguments.rounds), ("test", test, 1)):
        rows = list(make_rows(part, rounds, rng))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (arguments.output / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        modules = len({function.module for function in part})
        ties = sum(row["label"] == "tie" for row in rows)
        print(f"{name}: {len(part)} functions of {modules} modules, {len(rows)} rows, {ties} of them ties")
    corpus = "\n\n".join(f"{function.signature}\n{function.text}" for function in train)
    (arguments.output / "corpus.txt").write_text(corpus, encoding="utf-8")


if __name__ == "__main__":
    main()
