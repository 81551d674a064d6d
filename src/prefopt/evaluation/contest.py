"""A model against a baseline on a set of prompts: answers of both, verdicts, and what is worth knowing of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from prefopt.evaluation.judges import Duel, Judge, ScorerJudge, ServerJudge
from prefopt.evaluation.reward_models import REWARD_MODEL
from prefopt.evaluation.reward_names import reward_named
from prefopt.generation.base import Generator, Prompt, Request, Settings, last_turn
from prefopt.generation.journal import collect
from prefopt.generation.server import ServerGenerator, check_server
from prefopt.sources.chat_text import messages_in
from prefopt.sources.compression import content_suffix
from prefopt.sources.files import SUFFIXES, load_rows
from prefopt.sources.prompts import load_text_prompts
from prefopt.worlds import WORLD_PREFIX, world_modality, world_of

SERVER = "openai:"
WORLD_PROMPTS = 200
ANSWER_COLUMNS = ("answer", "completion", "chosen")


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt with its id, and the answers of a data set that people preferred, where it has them."""

    id: str
    prompt: Prompt
    chosen: Any = None


def read_prompts(source: str, limit: int | None = None) -> list[Prompted]:
    """The prompts of a file, or of a world's test split.

    Args:
        source: file with a column `prompt` (text or messages), or `id` too; a .txt file, one prompt a line; a hub id;
            or world:text.
        limit: take only the first so many.

    Raises:
        ValueError, OSError: no such data, no prompts in it, or an id twice.
    """
    if source.startswith(WORLD_PREFIX):
        world = text_world(source)
        texts = world.prompts(limit or WORLD_PROMPTS, "test")
        return [Prompted(f"test-{k}", [{"role": "user", "content": text}]) for k, text in enumerate(texts)]
    rows = load_text_prompts(source, limit)
    return [Prompted(name, row["prompt"], spelled_out(row.get("chosen"))) for name, row in rows]


def text_world(name: str) -> Any:
    """The world that `world:NAME` names.

    Raises:
        ValueError: there is none, or it is none of texts.
    """
    if world_modality(name) != "text":
        raise ValueError(f"{name} cannot be used here: needed a world of texts, such as world:text")
    return world_of(name)


def parse_server(name: str) -> tuple[str, str]:
    """Model and address of `openai:MODEL@URL`.

    Raises:
        ValueError: it has another form.

    Example:
        >>> parse_server("openai:org/model@http://localhost:8000/v1")
        ('org/model', 'http://localhost:8000/v1')
    """
    model, _, url = name.removeprefix(SERVER).rpartition("@")
    if not name.startswith(SERVER) or not model or not url.startswith(("http://", "https://")):
        raise ValueError(
            f"{name!r} names no server: needed openai:MODEL@URL, as in openai:judge@http://localhost:8000/v1"
        )
    return model, url


def read_answers(path: str, prompts: Sequence[Prompted]) -> dict[str, str]:
    """Answers out of a file, by id or by prompt.

    Args:
        path: file of rows with `id` or `prompt`, and one of answer, completion, chosen (text or messages). The
            `answers.jsonl` of an earlier evaluation serves.
        prompts: all of these must be answered in it.

    Raises:
        ValueError, OSError: no such file, no column of answers, or prompts without an answer.
    """
    rows = load_rows(path)
    column = next((name for name in ANSWER_COLUMNS if name in rows.columns), None)
    if column is None or not {"id", "prompt"} & set(rows.columns):
        raise ValueError(
            f"{path} has the columns {', '.join(rows.columns)}; needed prompt or id, and one of "
            f"{', '.join(ANSWER_COLUMNS)}"
        )
    by_prompt: dict[str, str] = {}
    by_id: dict[str, str] = {}
    for number, row in rows:
        answer, prompt = spelled_out(row.get(column)), spelled_out(row.get("prompt"))
        if isinstance(answer, list) and answer:
            answer = answer[-1].get("content")
        if not isinstance(answer, str):
            raise ValueError(
                f"{path}, {rows.place} {number}: {column} is {answer!r}; needed text or messages"
            )
        if prompt is not None:
            by_prompt.setdefault(json.dumps(prompt, sort_keys=True), answer)
        elif row.get("id") is not None:
            by_id.setdefault(str(row["id"]), answer)
    found = {p.id: by_prompt.get(json.dumps(p.prompt, sort_keys=True), by_id.get(p.id)) for p in prompts}
    missing = [p for p in prompts if found[p.id] is None]
    if missing:
        raise ValueError(
            f"{path} answers {len(prompts) - len(missing)} of {len(prompts)} prompts; it lacks {missing[0].id!r}: "
            f"{last_turn(missing[0].prompt)[:60]!r}. Add the answers or leave the prompts out"
        )
    return {name: answer for name, answer in found.items() if answer is not None}


def spelled_out(value: Any) -> Any:
    """The messages that a JSON text holds; anything else as it is."""
    return messages_in(value) or value if isinstance(value, str) else value


def is_file(source: str) -> bool:
    """Whether a side is a file of answers rather than a model."""
    return content_suffix(Path(source)) in SUFFIXES


def check_side(source: str, prompts: Sequence[Prompted], settings: Settings) -> None:
    """Fail early where a side cannot answer.

    Raises:
        ValueError, OSError: a file without answers, a model that is not there, has no chat template or too few
            positions, no server named.
    """
    if is_file(source):
        read_answers(source, prompts)
    elif source.startswith(SERVER):
        model, url = parse_server(source)
        check_server(url, model)
    else:
        from prefopt.generation.local import check_room
        from prefopt.models.positions import likelihood_for
        from prefopt.models.sources import check_causal

        folder = model_folder(source)
        check_causal(folder)
        likelihood = likelihood_for(folder, None)
        if not likelihood.tokenizer.chat_template and not all(isinstance(p.prompt, str) for p in prompts):
            raise ValueError(
                f"the prompts are conversations but the tokenizer of {source} has no chat template: save one with "
                "the model, or give prompts as plain strings"
            )
        ids = {p.id: likelihood.prompt_ids({"prompt": p.prompt}) for p in prompts}
        check_room(ids, settings.max_new_tokens, likelihood.positions, source)


def model_folder(source: str) -> str:
    """A model's source, a world replaced by the folder of its model."""
    return str(text_world(source).model_dir()) if source.startswith(WORLD_PREFIX) else source


def answers(
    source: str, prompts: Sequence[Prompted], settings: Settings, journal: Path, batch_size: int
) -> dict[str, str]:
    """One answer a prompt, by id: read, or generated and kept in the journal.

    Raises:
        ValueError, OSError: see `check_side` and the generators.
    """
    if is_file(source):
        return read_answers(source, prompts)
    generator: Generator
    if source.startswith(SERVER):
        model, url = parse_server(source)
        generator = ServerGenerator(url, model)
    else:
        generator = local(source, batch_size)
    requests = [Request(p.id, p.prompt) for p in prompts]
    return {r.id: r.text for r in collect(generator, requests, settings, journal, f"answers of {source}")}


def local(source: str, batch_size: int) -> Any:
    """A generator of a model's folder, hub id or world."""
    import torch

    from prefopt.generation.local import LocalGenerator
    from prefopt.models.identity import fingerprint
    from prefopt.models.loading import load_model, load_tokenizer

    folder = model_folder(source)
    model: Any = load_model(folder, trainable=False).model
    identity = fingerprint(model)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return LocalGenerator(model, load_tokenizer(folder), batch_size, identity=identity)


def the_judge(name: str, prompts: Sequence[Prompted], journal: Path) -> Judge:
    """A judge by name.

    Args:
        name: openai:MODEL@URL, or a reward by name (`reward_names.reward_named`), a sum of several included.
        prompts: that it will judge.
        journal: for replies of a server.

    Raises:
        ValueError, OSError: no such judge, or prompts that a world does not know.
        ConnectionError: no server is there.
    """
    if name.startswith(SERVER):
        model, url = parse_server(name)
        judge = ServerJudge(url, model, journal)
        check_server(url, model)  # before answers are generated for a judge that is not there
        return judge
    reward = reward_named(name)
    for prompt in prompts if WORLD_PREFIX in name else prompts[:1]:
        if REWARD_MODEL in name:  # it would load the model
            break
        try:  # before answers are generated for a judge that fails
            reward.scores([prompt.prompt], [""])
        except ValueError as error:
            raise ValueError(f"{name} cannot judge prompt {prompt.id!r}: {error}") from None
    return ScorerJudge(reward)


def displacement(model: str, baseline: str, prompts: Sequence[Prompted], batch_size: int) -> float | None:
    """Share of the data's preferred answers that the model finds less likely than the baseline does.

    Returns:
        A share in [0, 1]; None where a side is no model in this process, or a prompt comes without `chosen`.
    """
    if any(p.chosen is None for p in prompts) or any(
        is_file(s) or s.startswith(SERVER) for s in (model, baseline)
    ):
        return None
    from prefopt.comparisons import Item, UnusableItem
    from prefopt.evaluation.answers import sequence_logps
    from prefopt.evaluation.win_rate import displacement_rate
    from prefopt.likelihoods.tokens import TokenLikelihood

    logps = []
    length = shortest(model, baseline)
    for source in (model, baseline):
        generator = local(source, batch_size)
        likelihood = TokenLikelihood(generator.tokenizer, None, length)
        try:
            items = [likelihood.encode(Item({"prompt": p.prompt}, p.chosen)) for p in prompts]
        except UnusableItem:  # an empty answer, or a prompt that fills the positions
            return None
        logps.append(sequence_logps(generator.model, likelihood, items, batch_size))
    return displacement_rate(*logps)


def shortest(*sources: str) -> int | None:
    """Positions that all of the models have; None where nothing bounds a row."""
    from prefopt.models.positions import positions_of

    known = (positions_of(model_folder(source)) for source in sources)
    return min((n for n in known if n is not None), default=None)


def contest(
    prompts: Sequence[Prompted], ours: dict[str, str], theirs: dict[str, str], judge: Judge, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Judge every prompt, and sum up.

    Args:
        prompts: answered by both.
        ours: the model's answers by id.
        theirs: the baseline's.
        judge: compares them.
        seed: of the bootstrap.

    Returns:
        The summary, and a row a prompt.

    Raises:
        ValueError: fewer than two readable verdicts.
    """
    from prefopt.evaluation.answers import repetition
    from prefopt.evaluation.win_rate import compare, hacking_hints

    verdicts = judge.preferences([Duel(p.id, p.prompt, ours[p.id], theirs[p.id]) for p in prompts])
    rows: list[dict[str, Any]] = [
        {
            "id": p.id,
            "prompt": p.prompt,
            "answer": ours[p.id],
            "baseline": theirs[p.id],
            "preference": verdict,
        }
        for p, verdict in zip(prompts, verdicts, strict=True)
    ]
    judged = [row for row in rows if row["preference"] is not None]
    unreadable = len(rows) - len(judged)
    if len(judged) < 2:
        example = getattr(judge, "example", None)
        raise ValueError(
            f"of {len(rows)} prompts, {len(judged)} have a readable verdict; needed at least 2. A reply that could not be "
            f"read: {example!r}. Give more prompts, or a judge that answers A, B or tie"
        )
    length = {side: [len(row[side]) for row in judged] for side in ("answer", "baseline")}
    repeats = {side: fmean(repetition(row[side]) for row in judged) for side in ("answer", "baseline")}
    rates = compare(length["answer"], length["baseline"], [row["preference"] for row in judged], seed=seed)
    lengths = (fmean(length["answer"]), fmean(length["baseline"]))
    summary = {
        "prompts": len(rows),
        "unreadable": unreadable,
        "consistent_orders": getattr(judge, "consistent", None),
        **asdict(rates),
        "characters": {"model": lengths[0], "baseline": lengths[1]},
        "repetition": {"model": repeats["answer"], "baseline": repeats["baseline"]},
        "identical_answers": sum(row["answer"] == row["baseline"] for row in rows),
        "hints": hacking_hints(rates, lengths, (repeats["answer"], repeats["baseline"])),
    }
    return summary, rows
