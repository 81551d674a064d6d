"""Write docs/methods/: a page for every method and an index, from the files in src/prefopt/methods.

    python docs/build_method_pages.py

Edit a method's file, never its page; a test checks that the pages are current.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from prefopt import methods, objectives
from prefopt.methods import Method
from prefopt.modalities import all_modalities
from prefopt.modalities.fit import fits
from prefopt.objectives import registry
from prefopt.objectives.combining import COMBINED

FOLDER = Path(__file__).parent / "methods"

# rows of two comparisons for each thing an objective may read beside the log-ratios
READS = {
    "length": ("length_w=torch.tensor([5.0, 7.0])", "length_l=torch.tensor([4.0, 8.0])"),
    "logp": ("logp_w=torch.tensor([-4.0, -9.0])", "logp_l=torch.tensor([-6.0, -8.0])"),
    "rho_tokens": (
        "rho_tokens_w=torch.full((2, 8), 0.1)",
        "rho_tokens_l=torch.full((2, 8), -0.1)",
    ),
    "entropy": ("entropy_w=torch.tensor([3.0, 7.0])", "entropy_l=torch.tensor([4.0, 6.0])"),
    "top1": ("top1_w=torch.tensor([1.0, 3.0])", "top1_l=torch.tensor([1.0, 2.0])"),
    "log_p2": ("log_p2_w=torch.tensor([-2.0, -5.0])", "log_p2_l=torch.tensor([-3.0, -4.0])"),
    "changed": ("changed_w=torch.ones(2, 8)", "changed_l=torch.zeros(2, 8)"),
    "kl": ("kl_w=torch.tensor([0.5, 0.8])", "kl_l=torch.tensor([0.9, 0.6])"),
}
# the same of the branches of an objective, by what it reads of them
OF_BRANCHES = {
    "rho": "torch.tensor([0.2, 0.4])",
    "logp": "torch.tensor([-7.0, -9.0])",
    "length": "torch.tensor([4.0, 6.0])",
    "rho_tokens": "torch.full((2, 8), 0.05)",
}
ALSO = {"chip": ("rho_tokens",), "ha_dpo": ("length",), "tpo": ("length",)}
"""What is read of branches beside a log-ratio, or a log-probability where there is no reference."""
GIVEN = {"vdpo": "alpha=0.5"}
"""Hyper-parameters that have no default."""


def page(method: Method) -> str:
    """A method's page."""
    doc = importlib.import_module(f"prefopt.methods.{method.name}").__doc__ or ""
    parts = [
        f"# {method.title} (`{method.name}`)",
        doc.strip(),
        f"## When to use it\n\n{method.use_when}",
        f"## When it goes wrong\n\n{method.failure_signs}",
        f"## Run it\n\n```bash\nprefopt train {method.name} --model DIR --data {file_name(method)}\n```\n\n"
        f"{data_line(method)}",
        f"The loss alone, for your own loop:\n\n```python\n{example(method)}\n```",
        f"## Hyper-parameters\n\n{hyperparameters(method)}",
        *([f"## Settings of the paper\n\n{settings(method)}"] if method.papers_config else []),
        f"## Paper\n\n{citation(method)}\n\n```bibtex\n{method.paper.bibtex}\n```",
        "[All methods](README.md)",
    ]
    return "\n\n".join(parts) + "\n"


def file_name(method: Method) -> str:
    """A name that says what its rows are."""
    if method.draws_losers:
        return "motions.jsonl --judge retrieval:JUDGE"
    return "prompts.jsonl" if method.objective == "step_dpo" else "pairs.jsonl"


ERRORS = {
    "logp": ("logp_w=torch.tensor([-0.110, -0.112])", "logp_l=torch.tensor([-0.113, -0.109])"),
    "logp_own": ("logp_own_w=torch.tensor([-0.090, -0.210])", "logp_own_l=torch.zeros(2)"),
    "consistency": ("consistency_w=torch.tensor([0.7, 0.0])", "consistency_l=torch.zeros(2)"),
    "seen": ("seen_w=torch.tensor([1.0, 0.0])", "seen_l=torch.zeros(2)"),
}
"""The same where they are minus mean squared errors."""


def data_line(method: Method) -> str:
    """What rows it takes, what becomes of ties, and for which modality it is."""
    return f"{rows_line(method)} {modality_line(method)}"


def rows_line(method: Method) -> str:
    """What rows it takes and what becomes of ties."""
    objective = objectives.get(method.objective_name)
    if method.objective == "step_dpo":
        return "Rows are prompts: comparisons are made of the policy's own samples while it trains."
    if method.draws_losers:
        return (
            "Rows are good samples, alone or as the winners of pairs: see [data](../data.md) and [motions](../motion.md). Losers are "
            "sampled while it trains."
        )
    if objective.unpaired:
        return "Rows are single labelled samples, or pairs, which are taken apart: see [data](../data.md)."
    if objective.has_tie_term:
        return "Rows are pairs, ties and votes included: see [data](../data.md)."
    if objective.wins_only:
        return (
            "Rows are pairs with a clear winner and what the loss reads beside them: see [data](../data.md). Votes are "
            "refused; if the data has ties, add `--ties drop` or `as_win`."
        )
    return (
        "Rows are pairs: see [data](../data.md). It has no term for ties; if the data has any, add "
        "`--ties drop`, `as_win` or `soft_half`."
    )


def modality_line(method: Method) -> str:
    """What a sample may be."""
    if method.modality == "text":
        return "Samples are texts."
    if method.modality in ("image", "text_to_image"):
        return "Samples are images of a diffusion model."
    if method.modality == "vision":
        return "Samples are texts of a vision-language model, under images."
    if method.modality == "candidates":
        return "Samples are motions or images of a diffusion model."
    if method.modality == "control":
        return "Samples are images of a diffusion model under a control image."
    hint = (
        "; log-ratios of images and motions are differences of mean squared errors (of images about 1e-4), so multiply a beta "
        "for texts by some thousands"
    )
    scaled = "beta" in registry.hyperparameters(method.objective_name)
    return f"Samples are texts, images or motions{hint if scaled else ''}."


def example(method: Method) -> str:
    """A call of the objective that runs, with what it returns."""
    import torch

    given = GIVEN.get(method.name, "")
    objective = objectives.get(method.name, **dict([given.split("=")]) if given else {})
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
    if method.modality in ("image", "text_to_image", "control"):
        arguments, said = image_example(method)
    if objective.has_tie_term:
        arguments += ["torch.tensor([False, True])"]
        said += "; the second pair ties"
    reads = READS if method.modality != "control" else ERRORS
    arguments += [a for need in sorted(objective.needs) for a in reads[need]]
    for name, branch in objective.branches.items():
        parts = ("rho" if branch.reference else "logp", *ALSO.get(method.name, ()))
        arguments += [f"{part}_{name}={OF_BRANCHES[part]}" for part in parts]
    call = "loss(\n" + "".join(f"    {a},\n" for a in arguments) + ")"
    value = eval(call, {"torch": torch, "loss": objective})
    numbers = ", ".join(f"{x:.4f}" for x in value.tolist())
    return (
        f'import torch\nfrom prefopt import objectives\n\nloss = objectives.get("{method.name}"{given and f", {given}"})\n'
        f"losses = {call}  # {said}\nprint([f'{{x:.4f}}' for x in losses.tolist()])  # [{numbers}]"
    )


def image_example(method: Method) -> tuple[list[str], str]:
    """Numbers of an image model's size, and what they are."""
    if method.name == "lrm":
        return ["torch.tensor([10.2, 9.5])", "torch.tensor([9.1, 9.5])"], "scores of winner and loser"
    if method.name == "mapo":
        return [
            "torch.tensor([-0.110, -0.112])",
            "torch.tensor([-0.113, -0.109])",
        ], "-MSE of winner and loser"
    if method.name == "diffusion_kto":
        said = "MSE_ref - MSE of each image, and whether it is desirable"
        return ["torch.tensor([4e-4, -1e-4])", "torch.tensor([True, False])"], said
    if method.name == "controlnet_pp":
        return [
            "torch.tensor([-0.110, -0.112])",
            "torch.tensor([-0.113, -0.109])",
        ], "-MSE of winner and loser"
    if method.name in ("diffusion_dpo", "condition_po"):
        said = "MSE_ref - MSE of winner and loser"
        return ["torch.tensor([4e-4, -1e-4])", "torch.tensor([-2e-4, 1e-4])"], said
    said = "mean log-ratios of the better and the worse step; both of the second pair are clipped"
    return ["torch.tensor([0.001, 0.2])", "torch.tensor([-0.001, 0.3])"], said


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
    combined = registry.combining(method.objective_name)
    if method.modality in ("any", "text", "vision") and combined:
        keys = ", ".join(f"`{key}`" for key in combined)
        text += f"\n\nOf texts it also takes {keys}: see [what goes with other losses](README.md#what-goes-with-other-losses)."
    training = {key: value for key, value in method.defaults.items() if key not in known}
    if training:
        keys = ", ".join(f"`{key}={plain(value)}`" for key, value in training.items())
        text += f"\n\nTraining keys with another default than usual: {keys}."
    return text + f"\n\n`prefopt methods {method.name}` lists the training keys too."


def plain(value: object) -> str:
    """A value as it is written in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


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
    where = f"arXiv {paper.arxiv}" if paper.arxiv else "OpenReview"
    venue = f", {paper.venue}" if paper.venue else f", {paper.year}"
    return f"{authors}: *{paper.title}*{venue}. [{where}]({paper.url})"


def index() -> str:
    """The table of all methods."""
    rows = [
        "# Methods\n",
        "One file a method in `src/prefopt/methods`; these pages are made of them by `python docs/build_method_pages.py`.",
        "New here? `dpo` for clear wins, `dpo_rk` or `dpo_d` where there are ties, `kto` for thumbs up and down;",
        "for images `diffusion_dpo` with pairs, `diffusion_kto` with thumbs, `lpo` with prompts and a latent judge;",
        "for motions `sopo` with good ones and a judge.",
        "Sums work too: `prefopt train dpo+0.2*sft ...`.\n",
        "| name | method | idea | samples | ties | reference | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = [*reversed(all_modalities().values())]
    for name, method in methods.all_methods().items():
        objective = objectives.get(method.objective_name)
        # a method may be here before its modality, or without it
        samples = ", ".join(kind.noun for kind in kinds if fits(method, kind)) or method.modality
        ties = "yes" if objective.has_tie_term else "no"
        reference = "yes" if objective.needs_reference else "no"
        rows.append(
            f"| [`{name}`]({name}.md) | {method.title} | {method.summary} | {samples} | {ties} | {reference} | "
            f"[{method.paper.identifier}]({method.paper.url}) |"
        )
    rows += ["\n## What goes with other losses\n", "| key | meaning |", "|---|---|"]
    rows += [f"| `{key}` | {escaped(doc)} |" for key, doc in COMBINED.items()]
    rows += [
        "",
        "They are TRL's names, and in a sum they concern all of it: `prefopt train dpo+0.2*bco_pair ... ld_alpha=0.5",
        "use_weighting=true rpo_alpha=0.1`. A page says which of them its method takes; another is refused with the reason.",
    ]
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
