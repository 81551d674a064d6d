"""`prefopt train`: one run, from a YAML file or from a method's name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from prefopt.modalities.commands import errors_told

HELP = """Train a model on comparisons.

WHAT is a YAML file, a method's name, or both (a method and a file for all else). Every configuration key and every hyper-parameter of the method can be given
as key=value or --key value; the command line wins over the file.

\b
    prefopt train examples/ties.yaml beta=0.3
    prefopt train dpo_d examples/ties.yaml
    prefopt train dpo --model DIR --data pairs.jsonl --learning_rate 1e-6
    prefopt train --config examples/ties.yaml --beta 0.3
    accelerate launch --num_processes 2 -m prefopt train examples/ties.yaml

`prefopt methods` lists the methods; `prefopt methods NAME` explains one, with all keys.
"""


@click.command(help=HELP, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("what")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def command(what: str, overrides: tuple[str, ...]) -> None:
    """See HELP."""
    from prefopt.config import ConfigError, parse_overrides, read_yaml, resolve
    from prefopt.modalities.fit import kind_for

    try:
        named, given = split_off_config([what, *overrides])
        files = [*named]
        layers: list[Mapping[str, Any]] = []
        if given and is_file(given[0]):
            files.append(given.pop(0))
        elif given and not given[0].startswith("-") and "=" not in given[0]:
            layers = [{"method": given.pop(0)}]
            if given and is_file(given[0]):
                files.append(given.pop(0))
        if len(files) > 1:
            raise ConfigError(f"{' and '.join(files)} are both given: a run has one file")
        layers = [read_yaml(Path(file)) for file in files] + layers
        config, hyper = resolve(*layers, parse_overrides(given), kind_of=kind_for)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    run_or_explain(config, hyper)


def split_off_config(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files that `--config FILE` names, and all other arguments.

    Example:
        >>> split_off_config(["dpo", "--config", "a.yaml", "--beta", "0.3"])
        (['a.yaml'], ['dpo', '--beta', '0.3'])
    """
    files, rest = [], []
    waiting = iter(arguments)
    for argument in waiting:
        key, equals, value = argument.partition("=")
        if key not in ("--config", "config"):
            rest.append(argument)
        elif equals or key == "--config":
            file = value if equals else next(waiting, "")
            if not file:
                raise click.ClickException("--config needs a YAML file behind it")
            files.append(file)
        else:
            rest.append(argument)
    return files, rest


def is_file(what: str) -> bool:
    """Whether a YAML file is meant, and not a method or an override."""
    return "=" not in what and Path(what).suffix in (".yaml", ".yml")


def run_or_explain(config: object, hyper: dict[str, object]) -> object:
    """Run; errors that a user can act on become one plain line (PREFOPT_DEBUG=1 shows where)."""
    from prefopt.config import TrainConfig
    from prefopt.stages import train
    from prefopt.training.checkpoint import CheckpointError
    from prefopt.training.loop import StopRun

    assert isinstance(config, TrainConfig)
    # deprecations inside the libraries are for their callers, not for a user of this command
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|accelerate")
    with errors_told(StopRun, CheckpointError):
        return train(config, hyper)
