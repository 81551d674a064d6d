"""Write docs/methods/: a page for every method and an index, from the files in src/prefopt/methods.

    python docs/build_method_pages.py

Edit a method's file, never its page; a test checks that the pages are current.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from prefopt import methods, objectives
from prefopt.methods import Method
from prefopt.objectives import registry

FOLDER = Path(__file__).parent / "methods"

# rows of two comparisons for each thing an objective may read beside the log-ratios
READS = {
    "length": ("length_w=torch.tensor([5.0, 7.0])", "length_l=torch.tensor([4.0, 8.0])"),
    "logp": ("logp_w=torch.tensor([-4.0, -9.0])", "logp_l=torch.tensor([-6.0, -8.0])"),
    "rho_tokens": (
        "rho_tokens_w=torch.full((2, 8), 0.1)",
        "rho_tokens_l=torch.full((2, 8), -0.1)",
    ),
    "log_p2": ("log_p2_w=torch.tensor([-2.0, -5.0])", "log_p2_l=torch.tensor([-3.0, -4.0])"),
    "rho_mismatched": ("rho_mismatched=torch.tensor([0.2, 0.4])",),
}


def page(method: Method) -> str:
    """A method's page."""
    doc = importlib.import_module(f"prefopt.methods.{method.name}").__doc__ or ""
    parts = [
        f"# {method.title} (`{method.name}`)",
        doc.strip(),
        f"## When to use it\n\n{method.use_when}",
        f"## When it goes wrong\n\n{method.failure_signs}",
        f"## Run it\n\n```bash\nprefopt train {method.name} --model DIR --data pairs.jsonl\n```\n\n{data_line(method)}",
        f"The loss alone, for your own loop:\n\n```python\n{example(method)}\n```",
        f"## Hyper-parameters\n\n{hyperparameters(method)}",
        *([f"## Settings of the paper\n\n{settings(method)}"] if method.papers_config else []),
        f"## Paper\n\n{citation(method)}\n\n```bibtex\n{method.paper.bibtex}\n```",
        "[All methods](README.md)",
    ]
    return "\n\n".join(parts) + "\n"


def data_line(method: Method) -> str:
    """What rows it takes and what becomes of ties."""
    objective = objectives.get(method.objective_name)
    if objective.unpaired:
        return "Rows are single labelled samples, or pairs, which are taken apart: see [data](../data.md)."
    if objective.has_tie_term:
        return "Rows are pairs, ties and votes included: see [data](../data.md)."
    return (
        "Rows are pairs: see [data](../data.md). It has no term for ties; if the data has any, add "
        "`--ties drop`, `as_win` or `soft_half`."
    )


def example(method: Method) -> str:
    """A call of the objective that runs, with what it returns."""
    import torch

    objective = objectives.get(method.objective_name)
    arguments = ["torch.tensor([1.5, -0.5])"]
    if objective.unpaired:
        arguments += ["torch.tensor([True, False])"]
        said = "log-ratio of each sample, and whether it is desirable"
    else:
        arguments += ["torch.tensor([-1.0, 0.5])"]
        said = (
            "log-ratios of winner and loser"
            if objective.needs_reference
            else "log-probabilities of winner and loser"
        )
        if not objective.needs_reference:
            arguments = ["torch.tensor([-4.0, -9.0])", "torch.tensor([-6.0, -8.0])"]
    if objective.has_tie_term:
        arguments += ["torch.tensor([False, True])"]
        said += "; the second pair ties"
    arguments += [a for need in sorted(objective.needs) for a in READS[need]]
    call = "loss(\n" + "".join(f"    {a},\n" for a in arguments) + ")"
    value = eval(call, {"torch": torch, "loss": objective})
    numbers = ", ".join(f"{x:.4f}" for x in value.tolist())
    return (
        f'import torch\nfrom prefopt import objectives\n\nloss = objectives.get("{method.objective_name}")\n'
        f"losses = {call}  # {said}\nprint([f'{{x:.4f}}' for x in losses.tolist()])  # [{numbers}]"
    )


def hyperparameters(method: Method) -> str:
    """Fields of the objective, and training keys whose default the method changes."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    known = registry.hyperparameters(method.objective_name)
    for key, parameter in known.items():
        default = method.defaults.get(key, parameter.default)
        rows.append(
            f"| `{key}` | `{escaped(parameter.type)}` | {shown(default)} | {escaped(parameter.doc)} |"
        )
    text = "\n".join(rows) if known else "None."
    training = {key: value for key, value in method.defaults.items() if key not in known}
    if training:
        keys = ", ".join(f"`{key}={value:g}`" for key, value in training.items())
        text += f"\n\nTraining keys with another default than usual: {keys}."
    return text + f"\n\n`prefopt methods {method.name}` lists the training keys too."


def escaped(text: str) -> str:
    """Text in a table cell, where a bar would end it."""
    return text.replace("|", "\\|")


def shown(value: object) -> str:
    """A default in a table cell."""
    names = {"Margin()": "sum", "AverageMargin()": "average"}
    return f"`{names.get(repr(value), value)}`"


def settings(method: Method) -> str:
    """The paper's settings, a line each."""
    return "\n".join(f"- {where}: {what}" for where, what in method.papers_config.items())


def citation(method: Method) -> str:
    """The paper in one line, with its link."""
    paper = method.paper
    authors = paper.authors.replace(", others", " and others")
    venue = f", {paper.venue}" if paper.venue else f", {paper.year}"
    return f"{authors}: *{paper.title}*{venue}. [arXiv {paper.arxiv}]({paper.url})"


def index() -> str:
    """The table of all methods."""
    rows = [
        "# Methods\n",
        "One file a method in `src/prefopt/methods`; these pages are made of them by `python docs/build_method_pages.py`.",
        "New here? `dpo` for clear wins, `dpo_rk` or `dpo_d` where there are ties, `kto` for thumbs up and down.",
        "Sums work too: `prefopt train dpo+0.2*sft ...`.\n",
        "| name | method | idea | ties | reference | paper |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in methods.all_methods().items():
        objective = objectives.get(method.objective_name)
        ties = "yes" if objective.has_tie_term else "no"
        reference = "yes" if objective.needs_reference else "no"
        rows.append(
            f"| [`{name}`]({name}.md) | {method.title} | {method.summary} | {ties} | {reference} | "
            f"[{method.paper.arxiv}]({method.paper.url}) |"
        )
    return "\n".join(rows) + "\n"


def pages() -> dict[str, str]:
    """File name to text, for every page."""
    return {
        "README.md": index(),
        **{f"{name}.md": page(method) for name, method in methods.all_methods().items()},
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{FOLDER}: {len(pages())} pages")
