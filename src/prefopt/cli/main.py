"""`prefopt`: the group of commands.

A command's module is imported when the command is used, so that `prefopt --help` answers at once.
"""

from __future__ import annotations

import importlib

import click

from prefopt.version import __version__

COMMANDS = {
    "train": "Train a model on comparisons: prefopt train dpo_rk --model DIR --data pairs.jsonl",
    "demo": "Train a small model on the bundled text world and open the door to the rest.",
    "compare": "Train several methods, betas and seeds; table and reward-against-KL frontier.",
    "check": "Examine a data set of comparisons before training on it.",
    "build": "Make comparisons from scored candidates or ranks.",
    "evaluate": "Win rate of a model against a baseline, plain and length-controlled.",
    "merge": "Merge the adapter of a run into its base model, whole and for plain libraries.",
    "push": "Upload the model of a finished run, with its card, to the Hugging Face Hub.",
    "migrate": "Write a configuration of TRL, LLaMA-Factory or Axolotl as one of prefopt's.",
    "methods": "List the methods, or explain one of them.",
    "reproduce": "Run a paper's claims in miniature.",
    "report": "Write report.html and the model card of a run again.",
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"prefopt.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when one is misspelt."""
        import difflib

        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="prefopt")
def main() -> None:
    """Preference optimization: from a table of comparisons, ties included, to a better model."""
