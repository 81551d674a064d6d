"""Preferences from the docstrings of Python's own standard library.

    python examples/docstrings/make_pairs.py --output examples/docstrings/data

Writes train.jsonl and test.jsonl (rows of prompt, chosen, rejected, label) and corpus.txt (the training functions'
texts, for pretraining). A function's header is the prompt. Its docstring's first paragraph is preferred to another
function's; against the same paragraph with words that change nothing ("Return" or "Returns"), it ties. Source files are
parsed, never imported. Functions, not rows, are split: no prompt of test.jsonl occurs in training.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "turtledemo"}
SAME_MEANING = [
    (r"^Return\b", "Returns"),
    (r"^Returns\b", "Return"),
    (r"^Create\b", "Creates"),
    (r"^Get\b", "Gets"),
    (r"^Set\b", "Sets"),
    (r"\.$", ""),
]


def functions() -> Iterator[tuple[str, str]]:
    """(header, first paragraph of the docstring) of every documented function, in the order of the files."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if SKIPPED & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # a few files are wrong on purpose
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
                paragraph = " ".join(text.split("\n\n")[0].split())
                if 15 <= len(paragraph) <= 160:
                    yield f"def {node.name}({ast.unparse(node.args)[:80]}):", paragraph


def reworded(text: str) -> str | None:
    """The same statement in slightly other words, or None."""
    for pattern, words in SAME_MEANING:
        if re.search(pattern, text):
            return re.sub(pattern, words, text)
    return None


def make_rows(
    known: list[tuple[str, str]], per_function: int, rng: random.Random
) -> Iterator[dict[str, str]]:
    """Wins against other functions' docstrings, and for one function in three a tie."""
    for n, (header, own) in enumerate(known):
        prompt = f"{header}\n"
        for _ in range(per_function):
            _, other = rng.choice(known)
            if other != own:
                yield {"prompt": prompt, "chosen": own, "rejected": other, "label": "win"}
        if n % 3 == 0 and (same := reworded(own)):
            yield {"prompt": prompt, "chosen": own, "rejected": same, "label": "tie"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make preference pairs from the standard library's docstrings."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    # one function for each header and each text: a copy elsewhere in the library must not leak into the test
    texts = {text: header for header, text in functions()}
    known = sorted({header: text for text, header in texts.items()}.items())
    rng.shuffle(known)
    cut = len(known) // 10
    test, train = known[:cut], known[cut:]
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, part, per_function in (("train", train, 2), ("test", test, 1)):
        rows = list(make_rows(part, per_function, rng))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (arguments.output / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        ties = sum(row["label"] == "tie" for row in rows)
        print(f"{name}: {len(part)} functions, {len(rows)} rows, {ties} of them ties")
    corpus = "\n\n".join(f"{header}\n{text}" for header, text in train)
    (arguments.output / "corpus.txt").write_text(corpus, encoding="utf-8")


if __name__ == "__main__":
    main()
