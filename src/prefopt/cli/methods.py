"""`prefopt methods [NAME]`: list the methods, or explain one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.console import Console

    from prefopt.methods import Method
    from prefopt.modalities import Modality


@click.command("methods")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the methods, or explain the one called NAME: when to use it, its keys, its paper."""
    from rich.console import Console

    console = Console()
    if name is None:
        _table(console)
        return
    from prefopt import methods

    method = methods.find(name)
    if method is None:
        from prefopt.config import nearest

        if "+" in name:
            raise click.ClickException(f"{name!r} is a sum of methods; ask for its terms one by one")
        hint = nearest(name.replace("-", "_"), methods.all_methods())
        raise click.ClickException(f"there is no method {name!r}{hint or ';'} `prefopt methods` lists them")
    _explain(method, console)


def _table(console: Console) -> None:
    from rich.table import Table

    from prefopt.methods import all_methods

    table = Table(box=None, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("method")
    table.add_column("for", no_wrap=True)
    table.add_column("paper", no_wrap=True)
    for method in all_methods().values():
        table.add_row(method.name, method.title, _modality(method), method.paper.identifier)
    console.print(table)
    console.print("`prefopt methods NAME` explains one: when to use it, its keys, its paper.", markup=False)


def _explain(method: Method, console: Console) -> None:
    from prefopt import objectives
    from prefopt.objectives import registry

    objective = objectives.get(method.objective_name)

    def say(text: str, style: str | None = None, wrap: bool = True) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=not wrap)

    def section(title: str, rows: list[tuple[str, str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        say(f"\n{title}", "bold")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for left, right in rows:
            grid.add_row(Text(f"  {left}"), Text(right))
        console.print(grid)

    say(f"{method.name}: {method.title}", "bold")
    say(method.summary)
    rows = "single labelled samples" if objective.unpaired else "pairs"
    rows = "good samples, or pairs" if method.draws_losers else rows
    say(
        f"For: {_modality(method)}. Rows: {'prompts' if method.rows == 'prompts' else rows}. Ties: {'yes' if objective.has_tie_term else 'no'}. "
        f"Reference: {'yes' if objective.needs_reference else 'no'}."
    )
    say("\nWhen to use it", "bold")
    say(method.use_when)
    say("\nWhen it goes wrong", "bold")
    say(method.failure_signs)

    known = registry.hyperparameters(method.objective_name)
    section(
        "Hyper-parameters",
        [
            (f"{key} = {_shown(method.defaults.get(key, parameter.default))}", parameter.doc)
            for key, parameter in known.items()
        ]
        or [("none", "")],
    )
    if "usual_scores" in method.traits and (combined := registry.combining(method.objective_name)):
        section("Combines with (text models)", list(combined.items()))
    if method.papers_config:
        section("Settings of the paper", list(method.papers_config.items()))
    for nouns, keys in _keys(method).items():
        section(f"Configuration keys{nouns}", [(_key(k, f, method), f.description or "") for k, f in keys])
    paper = method.paper
    authors = paper.authors.replace(", others", " and others")
    say("\nPaper", "bold")
    say(f"{authors}: {paper.title}. {paper.venue or paper.year}.")
    say(paper.url, wrap=False)
    say(f"\n{paper.bibtex}", wrap=False)


def _keys(method: Method) -> dict[str, list[tuple[str, FieldInfo]]]:
    """Keys that mean something to a method: on every model that it trains, then on some, by which (" for text models")."""
    from prefopt.config import TrainConfig, applying

    kinds = _kinds(method)
    usable = {kind.noun: applying(method.name, kind.traits) for kind in kinds}
    found: dict[str, list[tuple[str, FieldInfo]]] = {"": []}
    for key, field in TrainConfig.model_fields.items():
        nouns = [noun for noun, keys in usable.items() if key in keys]
        if nouns:
            where = "" if len(nouns) == len(kinds) else f" for {in_a_row(nouns)} models"
            found.setdefault(where, []).append((key, field))
    return found


def in_a_row(words: list[str]) -> str:
    """Words as a sentence lists them: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _modality(method: Method) -> str:
    return ", ".join(kind.noun for kind in _kinds(method))


def _kinds(method: Method) -> list[Modality]:
    """The kinds of models that a method trains."""
    from prefopt import modalities
    from prefopt.modalities.fit import fits

    return [kind for kind in reversed(modalities.all_modalities().values()) if fits(method, kind)]


def _key(key: str, field: FieldInfo, method: Method) -> str:
    if field.is_required():
        return f"{key} (needed)"
    return f"{key} = {_shown(method.defaults.get(key, field.default))}"


def _shown(value: object) -> str:
    return {"Margin()": "sum", "AverageMargin()": "average"}.get(repr(value), str(value))
