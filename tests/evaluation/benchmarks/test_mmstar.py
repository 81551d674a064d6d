"""MMStar by hand: letters, capabilities and axes."""

from __future__ import annotations

import base64
import io
import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from prefopt.evaluation.benchmarks.base import Given
from prefopt.evaluation.benchmarks.mmstar import (
    answers_file,
    mmstar,
    option_letter,
    parts,
    questions,
    read_answers,
    runs_on,
)


def png(side: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 50).save(out, "png")
    return out.getvalue()


ROWS = [
    {"index": n, "question": f"Which?\nOptions: A: {n}, B: two", "answer": "AB"[n % 2], "category": "math" if n < 3 else "logic",
     "l2_category": "geometry" if n == 0 else "counting"}
    for n in range(4)
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "a"), ("(b) two", "b"), ("Option C", "c"), ("The answer is D.", "d"), (" a\n", "a"), ("B: two", "b"),
        ("I see a dog", None), ("", None), ("(", None), ("The answer is", None), ("It is option a", None),
    ],
)  # fmt: skip
def test_letters(answer, letter):
    assert option_letter(answer) == letter


def test_an_article_is_taken_for_a_letter_and_told():
    assert option_letter("A dog runs") == "a"
    assert [runs_on(a) for a in ("A dog runs", "An elephant", "A", "A. dog", "(A) dog", "none", "B two")] == [
        True, True, False, False, False, False, True,
    ]  # fmt: skip
    score = mmstar([("A", "A dog"), ("B", "b"), ("C", "who knows"), ("d", "")])
    assert score.figures["accuracy"] == 0.5
    assert (score.counts["letter_in_text"], score.counts["no_letter"]) == (1, 2)
    with pytest.raises(ValueError, match="a right answer is 'cat'"):
        mmstar([("cat", "A")])


@pytest.mark.parametrize("kind", ["tsv", "parquet", "jsonl"])
def test_files(tmp_path, kind):
    pictures = [png(40 + n) for n in range(4)]
    path = tmp_path / f"mmstar.{kind}"
    if kind == "parquet":
        table = pa.Table.from_pylist(
            [
                {**row, "image": {"bytes": data, "path": None}}
                for row, data in zip(ROWS, pictures, strict=True)
            ]
        )
        pyarrow.parquet.write_table(table, path)
    else:
        rows = [{**row, "image": base64.b64encode(d).decode()} for row, d in zip(ROWS, pictures, strict=True)]
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            cells = [[json.dumps(str(v)).replace("\\n", "\n") for v in row.values()] for row in rows]
            path.write_text("\n".join("\t".join(line) for line in ([*rows[0]], *cells)) + "\n")
    asked = questions(path)
    assert [q.image for q in asked] == pictures
    assert asked[1].prompt == ROWS[1]["question"]
    answers = {"0": "A", "1": "a", "2": "(A)\nbecause\t1", "3": ""}
    written = tmp_path / "answers.tsv"
    written.write_text(answers_file(asked, answers))
    assert written.read_text().splitlines()[0] == "index\tquestion\tanswer\tcategory\tl2_category\tprediction"
    assert read_answers(written, asked) == answers
    found = {part.name: part.score().figures["accuracy"] for part in parts(asked, answers, Given())}
    assert found == pytest.approx(
        {
            "all": 2 / 4,
            "math": 2 / 3,
            "math / geometry": 1,
            "math / counting": 1 / 2,
            "logic": 0,
            "logic / counting": 0,
        }
    )
    written.write_text("index\tanswer\n1\tA\n")
    with pytest.raises(ValueError, match="has no `prediction`"):
        read_answers(written, asked)
