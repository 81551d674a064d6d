"""What has arrived stays: a file of JSON lines that grows by whole lines, and is continued after a crash.

The first line says what the lines behind it depend on. A last line without its end was being written when the process
died: it is cut off, and asked for again. Any other line that cannot be read is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prefopt.files import append_to, writing
from prefopt.generation.base import Generator, Request, Response, Settings
from prefopt.sources.progress import with_bar

CONTINUE = "free some space or fix the permissions, and go on with the same command"


class Journal:
    """Lines of one file, on disk as soon as `append` returns.

    Args:
        path: the file; made on first append, with its folder.
        header: what all lines depend on; a journal with another header is not continued.

    Attributes:
        lines: those found, then those appended, as (number in the file, content).

    Raises:
        ValueError: a line that cannot be read, or another header; the message names line or key.
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
        >>> with Journal(path, {"kind": "numbers"}) as journal:
        ...     journal.append([{"n": 1}, {"n": 2}])
        >>> Journal(path, {"kind": "numbers"}).lines
        [(2, {'n': 1}), (3, {'n': 2})]
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.header = json.loads(json.dumps(header))  # as it reads back
        self.lines: list[tuple[int, dict[str, Any]]] = []
        self._file: Any = None
        self._whole = 0  # bytes up to the last line end
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        self._whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._whole].split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
            except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
                raise ValueError(
                    f"{self.path}, line {number}: cannot be read ({error}). Only the last line may be torn, by a crash; "
                    "this one was changed: restore it, or delete the line to have it asked for again"
                ) from None
            if number == 1:
                self._check_header(row)
            else:
                self.lines.append((number, row))

    def _check_header(self, found: Mapping[str, Any]) -> None:
        for key in sorted({*found, *self.header}):
            if found.get(key) != self.header.get(key):
                raise ValueError(
                    f"{self.path} was begun with {key} = {found.get(key)!r}, now it is {self.header.get(key)!r}: what it "
                    "holds would not fit. Use the earlier value, another file, or delete this one"
                )

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write lines behind the others and wait until the disk has them.

        Raises:
            WriteError: they could not be written.
        """
        if not rows:
            return
        added = [dict(row) for row in rows]
        text = [json.dumps(row, ensure_ascii=False) for row in added]
        if self._file is None:
            with writing(self.path.name, self.path.parent, CONTINUE):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
                self._file.truncate(self._whole)  # a torn end must not swallow the next line
        if self._whole == 0:
            text.insert(0, json.dumps(self.header, ensure_ascii=False))
        # one write, so that a process that dies leaves all of a batch or none: the next call then makes up the same
        # batches, and the same bits
        data = ("\n".join(text) + "\n").encode("utf-8", "surrogatepass")
        with writing(f"{len(rows)} lines of {self.path.name}", self.path.parent, CONTINUE):
            append_to(self._file.fileno(), data)
            os.fsync(self._file.fileno())
        start = self.lines[-1][0] + 1 if self.lines else 2
        self._whole += len(data)
        self.lines.extend(enumerate(added, start))

    def close(self) -> None:
        """Close the file; a later append opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def collect(
    generator: Generator,
    requests: Sequence[Request],
    settings: Settings,
    journal_path: str | Path,
    progress: str | None = "sampling answers",
) -> list[Response]:
    """All responses, of which those in the journal are not asked for again.

    Args:
        generator: answers what is missing.
        requests: with distinct ids.
        settings: how to draw; a journal belongs to one setting and one model.
        journal_path: where responses are kept as they arrive.
        progress: words beside a bar on standard error, which appears after two seconds; None for no bar.

    Returns:
        Responses in the order of the requests, then of the sample numbers.

    Raises:
        ValueError: an id used twice, a journal of other settings, another model or another prompt under the same id,
            or a line that cannot be read; before anything is generated.
        OSError: the backend failed; what had arrived is in the journal, and the next call continues from there.

    Example:
        >>> collect(LocalGenerator(model, tokenizer), requests, Settings(), "answers.jsonl")    # doctest: +SKIP
    """
    by_id = {request.id: request for request in requests}
    if len(by_id) < len(requests):
        seen: set[str] = set()
        twice = next(r.id for r in requests if r.id in seen or seen.add(r.id))  # type: ignore[func-returns-value]
        raise ValueError(f"two requests have the id {twice!r}: answers are kept by id, so give each its own")
    header = {"settings": asdict(settings), "model": generator.identity}
    prompts = {request.id: _digest(request) for request in requests}
    with Journal(journal_path, header) as journal:
        found: dict[tuple[str, int], Response] = {}
        for number, row in journal.lines:
            response, digest = _response(row, journal.path, number)
            if digest != prompts.get(response.id, digest):
                raise ValueError(
                    f"{journal.path}, line {number}: answers another prompt under the id {response.id!r}. Ids name "
                    "prompts for good: use another id or another journal"
                )
            found.setdefault((response.id, response.sample), response)
        missing = [run for request in requests for run in _missing(request, found)]
        total = sum(run.n for run in missing)
        arriving = _Arriving(_kept(generator, missing, settings, journal, prompts), total)
        for response in with_bar(arriving, progress or "", progress is not None):
            found[response.id, response.sample] = response
    lost = [(r.id, k) for r in requests for k in r.samples if (r.id, k) not in found]
    if lost:
        raise ValueError(
            f"{type(generator).__name__} left out {len(lost)} of {total} responses, such as sample {lost[0][1]} of "
            f"request {lost[0][0]!r}: call again to ask for them"
        )
    return [found[r.id, k] for r in requests for k in r.samples]


@dataclass(frozen=True)
class _Arriving:
    """An iterator whose length is known."""

    responses: Iterator[Response]
    total: int

    def __iter__(self) -> Iterator[Response]:
        return self.responses

    def __len__(self) -> int:
        return self.total


def _kept(
    generator: Generator,
    requests: Sequence[Request],
    settings: Settings,
    journal: Journal,
    prompts: Mapping[str, str],
) -> Iterator[Response]:
    """Responses one by one, each on disk before it is handed on."""
    if not requests:
        return
    for batch in generator.generate(requests, settings):
        journal.append([_line(r, prompts[r.id]) for r in batch])
        yield from batch


def _missing(request: Request, found: Mapping[tuple[str, int], Response]) -> Iterator[Request]:
    """The request, cut to unbroken runs of samples that are not there."""
    start: int | None = None
    for sample in (*request.samples, None):
        there = sample is None or (request.id, sample) in found
        if start is None and not there:
            start = sample
        elif start is not None and there:
            end = request.first + request.n if sample is None else sample
            yield replace(request, n=end - start, first=start)
            start = None


def _digest(request: Request) -> str:
    asked = {"prompt": request.prompt, **request.template} if request.template else request.prompt
    content = json.dumps(asked, sort_keys=True, default=str)  # pictures are named by their content
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _line(response: Response, prompt: str) -> dict[str, Any]:
    return {name: value for name, value in asdict(response).items() if name != "ids"} | {"prompt": prompt}


def _response(row: Mapping[str, Any], path: Path, number: int) -> tuple[Response, str]:
    try:
        return Response(row["id"], row["sample"], row["text"], row["tokens"], row["ended"]), row["prompt"]
    except KeyError as error:
        raise ValueError(
            f"{path}, line {number}: no {error.args[0]!r} in it, so it is no response. Is this another kind of file? "
            "Name a new one"
        ) from None
