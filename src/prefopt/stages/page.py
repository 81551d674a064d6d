"""report.html and README.md of a method of several runs: the course over rounds, and a way to each run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from prefopt.config import TRAINING_ROWS, TrainConfig, read_yaml
from prefopt.files import GO_ON, write_whole
from prefopt.methods import Method
from prefopt.report.charts import line_chart
from prefopt.report.drawing import Series
from prefopt.report.page import Section, figure, page

# what a round's record holds, as a reader calls it, and how it is written
COLUMNS = {
    "pairs": ("pairs", "{:,.0f}"),
    "label_accuracy": ("labels right", "{:.0%}"),
    "mean_gap": ("mean gap", "{:.3f}"),
    "moved_mass": ("mass moved", "{:.1%}"),
    "worst_value": ("worst loss", "{:.4f}"),
    "center_value": ("plain loss", "{:.4f}"),
    "answer_words": ("words an answer", "{:.1f}"),
    "reward": ("reward", "{:.3f}"),
    "rewards/accuracies": ("held-out accuracy", "{:.3f}"),
    "training_accuracies": ("accuracy on training rows", "{:.3f}"),
    "displacement": ("chosen less likely", "{:.0%}"),
    "kl": ("KL, nats", "{:.2f}"),
    "sample_length": ("tokens a sample", "{:.1f}"),
}


def write_page(
    folder: Path, config: TrainConfig, method: Method, summary: Sequence[Mapping[str, Any]], told: str
) -> None:
    """Write both files.

    Args:
        folder: of the method.
        config: of the method.
        method: for its words.
        summary: a record a stage: `stage` (its folder's name), and what `COLUMNS` names.
        told: a sentence on the stages.
    """
    rows = [flat(row) for row in summary]
    sections = [Section("stages", "Stages", charts(rows) + table(rows))]
    header = Markup("<p>{}</p><p>{} Start: {}; data: {}.</p>").format(
        method.summary, told, config.model, config.data
    )
    html = page(f"{method.title}: all stages", sections, header=header, kicker=f"prefopt train {method.name}")
    write_whole(folder / "report.html", html.encode(errors="replace"), "the report", GO_ON)
    last = folder / "stages" / str(rows[-1]["stage"]) / "run"
    card = whole_card((last / "README.md").read_text("utf-8"), last, folder, config, told)
    write_whole(folder / "README.md", card.encode(errors="replace"), "the model card", GO_ON)


def whole_card(card: str, last: Path, folder: Path, config: TrainConfig, told: str) -> str:
    """The last run's model card, as that of the method's model: where it began, where it lies, what came before."""
    source, run_name = (str(read_yaml(last / "config.yaml")[key]) for key in ("model", "run_name"))
    card = card.replace(f"\n# {run_name}\n", f"\n# {config.run_name or folder.name}\n", 1)
    card = card.replace(f"`{source}` trained", f"`{config.model}` trained", 1)
    card = card.replace('folder = "run/model"', f'folder = "{folder.name}/model"', 1)
    note = f"{told} Start and end below are those of the last stage; report.html shows all of them."
    return card.replace("\n## Use it\n", f"\n{note}\n\n## Use it\n", 1)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A round's record in one level."""
    worst = row.get("worst_case") or {}
    return {**row, **{k: v for k, v in worst.items() if isinstance(v, int | float)}}


def charts(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Reward, and how good the labels were, against the round; nothing where stages are not rounds."""
    out = Markup("")
    if len(rows) < 2 or not all(isinstance(row["stage"], int) for row in rows):
        return out
    rewards = [(row["stage"], row["reward"]) for row in rows if row.get("reward") is not None]
    if rewards:
        start = rows[0].get("start_reward")
        levels = [] if start is None else [(start, "before training")]
        out += figure(
            "Reward of samples after each round",
            line_chart(
                [Series(label="reward", colour="after", x=[r for r, _ in rewards], y=[v for _, v in rewards])],
                title="Reward by round", x_label="round", levels=levels,
            ),
            look_for="A rise after round 0 is what the unlabelled prompts have added.",
            trouble="A fall while the mean gap grows: the policy has grown sure of labels that are wrong.",
        )  # fmt: skip
    labelled = [
        (row["stage"], row["label_accuracy"]) for row in rows if row.get("label_accuracy") is not None
    ]
    if len(labelled) > 1:
        out += figure(
            "Labels that the true reward agrees with",
            line_chart(
                [Series(label="labels right", colour="eval", x=[r for r, _ in labelled], y=[v for _, v in labelled])],
                title="Label accuracy by round", x_label="round", shares=True, levels=[(0.5, "guessing")],
            ),
            look_for="Above one half; ties of the true reward count one half.",
        )  # fmt: skip
    return Markup('<div class="grid">{}</div>').format(out) if out else out


def table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Every round's numbers, with links to the reports of the runs."""
    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    head = Markup("").join(Markup("<th>{}</th>").format(COLUMNS[name][0]) for name in shown)
    lines = Markup("").join(
        Markup('<tr><td><a href="stages/{0}/run/report.html">{0}</a></td>{1}</tr>').format(
            row["stage"], Markup("").join(Markup("<td>{}</td>").format(cell(row, name)) for name in shown)
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll"><table class="numbers"><thead><tr><th>stage</th>{}</tr></thead><tbody>{}</tbody></table>'
        "</div>"
    ).format(head, lines)


def cell(row: Mapping[str, Any], name: str) -> str:
    """A value as written, or a dash."""
    value = row.get(name)
    return "–" if value is None else COLUMNS[name][1].format(value)


def shown(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a run that a summary of rounds shows."""
    names = ("reward", "rewards/accuracies", "displacement", "kl", "sample_length", "sample_repetition")
    split = TRAINING_ROWS if any(name.startswith(TRAINING_ROWS) for name in metrics) else "eval"
    kept = {name: metrics[f"{split}_{name}"] for name in names if f"{split}_{name}" in metrics}
    if split == TRAINING_ROWS and "rewards/accuracies" in kept:
        kept["training_accuracies"] = kept.pop("rewards/accuracies")
    if f"start_{split}_reward" in metrics:
        kept["start_reward"] = metrics[f"start_{split}_reward"]
    return kept
