"""`prefopt evaluate`: a model against a baseline, by a judge; win rate, plain and length-controlled."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefopt.modalities.commands import errors_told

if TYPE_CHECKING:
    from prefopt.modalities.base import Modality


class ByModality(click.Command):
    """The command below for models that answer prompts; that of its modality for a MODEL of another one."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Look at MODEL, which comes first, and at options that make it one of another modality (--controlnet).

        Where an option comes first (answers are scored, and no MODEL is asked), look at options that this command lacks.
        """
        if args and args[0].startswith("-") and (owner := self._owner(args)) is not None:
            taken: click.Context = owner.make_context(info_name, args, parent, **extra)
            return taken
        if args and not args[0].startswith("-") and ":" not in args[0].removeprefix("world:"):
            from prefopt.modalities import all_modalities

            given = {arg.partition("=")[0] for arg in args}
            keyed = (kind for kind in all_modalities().values() if kind.key and f"--{kind.key}" in given)
            try:
                kind = next(keyed, None) or _modality_of(args[0])
                part = kind.part_or_none("evaluate")
            except ValueError as error:
                raise click.ClickException(str(error)) from error
            if part is not None:
                context: click.Context = part.COMMAND.make_context(info_name, args, parent, **extra)
                return context
        return super().make_context(info_name, args, parent, **extra)

    def _owner(self, args: list[str]) -> click.Command | None:
        """The command of a modality that has one of the options given, where this one has not."""
        from prefopt.modalities import all_modalities

        own = {name for param in self.params for name in param.opts} | {"-h", "--help"}
        foreign = {arg.partition("=")[0] for arg in args if arg.startswith("--")} - own
        for kind in all_modalities().values() if foreign else ():
            part = kind.part_or_none("evaluate")
            if part is not None and foreign & {name for param in part.COMMAND.params for name in param.opts}:
                command: click.Command = part.COMMAND
                return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """The command that the context is of."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


def _modality_of(model: str) -> Modality:
    """The modality of a model, also where MODEL is the folder of a run, or holds what a run left that is no whole model."""
    from prefopt.modalities import UNCLAIMED, of_model, of_run

    kind, folder = of_model(model), Path(model).expanduser()
    if kind.name == UNCLAIMED:
        for run in (folder, folder.parent) if folder.name == "model" else (folder,):
            if (run / "record" / "manifest.json").is_file():
                return of_run(run)
    return kind


@click.command("evaluate", cls=ByModality)
@click.argument("model")
@click.option("--baseline", required=True, metavar="MODEL_OR_FILE", help="What MODEL is compared with.")
@click.option(
    "--data", required=True, metavar="FILE|world:text", help="Prompts: column `prompt`, text or messages."
)
@click.option(
    "--judge", required=True, metavar="JUDGE",
    help="world:text, openai:MODEL@URL of a server, reward:DIR of a reward model, FILE.py:FUNCTION, a score of "
    "(prompt, answer), or a sum 0.7*reward:DIR+0.3*FILE.py:FUNCTION.",
)  # fmt: skip
@click.option(
    "--max_new_tokens", "--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.7, show_default=True, help="0: greedy."
)
@click.option(
    "--top_p", "--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 2),
    default=0,
    show_default=True,
    help="Of answers and bootstrap.",
)
@click.option("--limit", type=click.IntRange(min=2), help="Take only the first so many prompts.")
@click.option(
    "--batch_size", "--batch-size", type=click.IntRange(min=1), default=32, show_default=True,
    help="Answers at once, of a model in this process.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/evaluation"),
    show_default=True, help="Folder for evaluation.json, answers.jsonl, the journals, and the date that chat templates print.",
)  # fmt: skip
def command(
    model: str,
    baseline: str,
    data: str,
    judge: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    limit: int | None,
    batch_size: int,
    output: Path,
) -> None:
    """Let MODEL and a baseline answer the same prompts, and a judge compare the answers.

    MODEL and --baseline are each a folder or hub id of a language model, world:text, openai:MODEL@URL for a model behind
    a server, or a file of answers (.jsonl, .json, .csv, .parquet with `prompt` or `id`, and `answer`, `completion` or
    `chosen`). Answers and a server's verdicts are kept as they arrive: the same command again continues.

    Models that draw under control images, and vision-language models, are measured otherwise: `prefopt evaluate MODEL --help`
    shows how.

    \b
        prefopt evaluate runs/mine/model --baseline world:text --data world:text --judge world:text
        prefopt evaluate runs/mine/model --baseline answers.jsonl --data prompts.jsonl \\
            --judge openai:judge-model@http://localhost:8000/v1
    """
    given = {
        "model": model, "baseline": baseline, "data": data, "judge": judge, "max_new_tokens": max_new_tokens,
        "temperature": temperature, "top_p": top_p, "seed": seed, "limit": limit,
    }  # fmt: skip
    with errors_told(TypeError):
        summary = _evaluate(given, batch_size, output)
    _print(summary)
    click.echo(f"wrote {output / 'evaluation.json'} and {output / 'answers.jsonl'}")


def _evaluate(given: dict[str, Any], batch_size: int, output: Path) -> dict[str, Any]:
    from contextlib import ExitStack
    from dataclasses import replace

    from prefopt.evaluation import contest
    from prefopt.generation.base import Settings
    from prefopt.likelihoods.clock import dated
    from prefopt.locking import FolderLock

    settings = Settings(given["max_new_tokens"], given["temperature"], given["top_p"], given["seed"])
    prompts = contest.read_prompts(given["data"], given["limit"])
    sides = {"model": given["model"], "baseline": given["baseline"]}
    lock = FolderLock(output, "evaluation", "give another --output")
    stack = ExitStack()
    try:
        if output.exists():  # before its journals are read
            lock.take()
        judge = contest.the_judge(given["judge"], prompts, output / "judge.journal.jsonl")
        for source in sides.values():
            contest.check_side(source, prompts, settings)
        lock.take()
        stack.enter_context(dated(day_of(output)))
        # noise of its own for the baseline: with the model's, the two would agree more than independent answers do
        seeds = {"model": given["seed"], "baseline": given["seed"] + 1}
        ours, theirs = (
            contest.answers(
                source,
                prompts,
                replace(settings, seed=seeds[side]),
                output / f"{side}.journal.jsonl",
                batch_size,
            )
            for side, source in sides.items()
        )
        found, rows = contest.contest(prompts, ours, theirs, judge, given["seed"])
        displaced = contest.displacement(given["model"], given["baseline"], prompts, batch_size)
        summary = {"settings": given, **found, "displacement": displaced}
        _write(output / "answers.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        _write(output / "evaluation.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        return summary
    finally:
        stack.close()
        lock.release()


def day_of(output: Path) -> datetime.date:
    """The day on which an evaluation began: chat templates that print the date print it also when it is continued."""
    from prefopt.files import write_whole
    from prefopt.likelihoods.clock import today

    path = output / "date.txt"
    if not path.exists():
        write_whole(path, f"{today()}\n")
    try:
        return datetime.date.fromisoformat(path.read_text("utf-8").strip())
    except ValueError as error:
        raise ValueError(f"{path} holds no date ({error}): delete it") from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    from prefopt.files import write_whole

    write_whole(path, text.encode(errors="surrogatepass"))


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    rates = Table("", "%", "95 % interval", title=f"{summary['n']} prompts", title_justify="left")
    for name, key in (("win rate", "win_rate"), ("length-controlled", "lc_win_rate")):
        rate = summary[key]
        rates.add_row(name, f"{rate['value']:.1f}", f"{rate['low']:.1f} to {rate['high']:.1f}")
    sides = Table("", "model", "baseline")
    for name, key, form in (("characters", "characters", ".0f"), ("repetition", "repetition", ".3f")):
        sides.add_row(name, *(format(summary[key][side], form) for side in ("model", "baseline")))
    console.print(rates)
    console.print(f"{summary['wins']} wins, {summary['draws']} draws, {summary['losses']} losses")
    console.print(sides)
    notes = list(summary["hints"])
    if summary["unreadable"]:
        notes.append(f"{summary['unreadable']} prompts left out: a verdict could not be read")
    if (consistent := summary["consistent_orders"]) is not None:
        notes.append(f"verdicts of both orders agree on {consistent:.0%} of the prompts")
    if (displaced := summary["displacement"]) is not None:
        notes.append(
            f"displacement: {displaced:.0%} of the data's chosen answers are less likely than under the baseline"
        )
    for note in notes:
        console.print("[cyan]note:[/] ", end="")
        console.print(note, markup=False, soft_wrap=True)
