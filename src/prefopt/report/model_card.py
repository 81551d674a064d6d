"""`README.md` of a run: the model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.files import PAGES, write_whole
from prefopt.report.account import Account, idle_keys, read
from prefopt.report.facts import accuracy
from prefopt.report.findings import findings
from prefopt.report.format import duration, finite, number, percent, plain
from prefopt.report.load import Run
from prefopt.report.loading import base_model
from prefopt.report.papers import paper_link

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HYPER_PARAMETERS = (
    "beta", "learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "optim", "weight_decay", "max_grad_norm",
    "num_train_epochs", "max_steps", "max_length", "ties", "loss_weights", "label_smoothing", "reference", "dtype", "bf16",
    "lora_r", "lora_alpha", "seed",
)  # fmt: skip


def write_model_card(run_dir: str | Path) -> Path:
    """Write the model card, `README.md`, into a run folder from what the folder holds.

    Args:
        run_dir: folder of a run; the card says what is not known.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: `run_dir` is not a folder.

    Example:
        >>> write_model_card("runs/ties")  # doctest: +SKIP
        PosixPath('runs/ties/README.md')
    """
    run, account = read(run_dir)
    path = run.folder / "README.md"
    write_whole(path, model_card(run, account).encode(errors="replace"), "the model card", PAGES)
    return path


def model_card(run: Run, account: Account) -> str:
    """The card as text: YAML front matter, then Markdown."""
    import yaml
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("prefopt.report"),
        autoescape=False,  # Markdown, not HTML; `cell` keeps what we quote inside its table
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "code": code_span}
    paper, loading = run.of("manifest", "paper"), account.loading(run)
    body = environment.get_template("model_card.md.j2").render(
        run=run,
        name=" ".join(run.name.split()),
        title=run.of("manifest", "title") or run.of("manifest", "method") or "preference optimization",
        method=run.of("manifest", "method") or run.of("config", "method"),
        idea=run.of("manifest", "summary"),
        told=run.of("manifest", "stages", "told"),
        base=base_model(run) if run.of("manifest", "model", "source") or run.of("config", "model") else "",
        status=run.of("manifest", "status") or "unknown",
        paper=paper if isinstance(paper, Mapping) and paper.get("title") else None,
        data=_data_rows(run, account),
        hyper_parameters=_hyper_parameters(run, account),
        results=_results(run, account),
        findings=[finding for finding in findings(run, account) if finding.level != "note"],
        loading=loading,
        paper_link=paper_link(paper) if isinstance(paper, Mapping) else ("", ""),
        pictures=account.pictures(run),
        pictures_told=account.pictures_told,
        environment_rows=_environment_rows(run),
        version=run.of("manifest", "prefopt"),
    )
    front = yaml.safe_dump(_front_matter(run, account), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{body.strip()}\n"


def cell(value: Any) -> str:
    """Text that stays in its Markdown table cell and shows as it is."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def code_span(value: Any) -> str:
    """Text as inline code, on one line."""
    return "`" + " ".join(str(value).replace("`", "'").split()) + "`"


def _front_matter(run: Run, account: Account) -> dict[str, Any]:
    loading, own = account.loading(run), account.front(run)
    front: dict[str, Any] = {"library_name": loading.library}
    base = base_model(run)
    # the hub resolves these as links, so local folders and generated data stay out
    if HUB_ID.fullmatch(base) and not Path(base).exists():
        front["base_model"] = base
        front["base_model_relation"] = "adapter" if loading.adapter else "finetune"
    source = str(run.of("manifest", "data", "source") or "")
    if HUB_ID.fullmatch(source) and not Path(source).exists():
        front["datasets"] = [source]
    if own.pipeline_tag:
        front["pipeline_tag"] = own.pipeline_tag
    method = run.of("manifest", "method") or run.of("config", "method")
    front["tags"] = [
        "prefopt",
        "preference-optimization",
        *([" ".join(str(method).split())] if method else []),
    ]
    front["tags"] += own.tags
    if arxiv := run.of("manifest", "paper", "arxiv"):
        front["tags"].append(f"arxiv:{arxiv}")
    return front


def also_trained_on(run: Run) -> str | None:
    """What the data report says of held-out rows that are trained on, too."""
    hints = run.of("data", "hints")
    texts = [str(h.get("text")) for h in hints if isinstance(h, Mapping)] if isinstance(hints, list) else []
    return next((text for text in texts if "also trained on" in text), None)


def _data_rows(run: Run, account: Account) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = [
        ("Source", run.of("manifest", "data", "source") or run.of("data", "source")),
    ]
    if not run.online:  # its comparisons are its own, made while training
        rows += [
            ("Training examples", run.of("manifest", "data", "examples")),
            ("Held-out examples", run.of("manifest", "data", "eval_examples")),
            ("Note", run.not_held_out),
            ("Note on held-out rows", also_trained_on(run)),
        ]
    kinds = run.of("data", "comparisons")
    if isinstance(kinds, Mapping):
        rows.append(
            ("Comparisons", ", ".join(f"{number(n)} {kind}" for kind, n in kinds.items() if finite(n)))
        )
    rows += account.data_rows(run)
    dropped = run.of("data", "dropped")
    if isinstance(dropped, Mapping):
        rows.append(("Rows dropped", number(int(sum(finite(n) or 0 for n in dropped.values())))))
    rows.append(("Fingerprint", run.of("manifest", "data", "fingerprint")))
    return [
        (name, value if isinstance(value, str) else number(value))
        for name, value in rows
        if value not in (None, "")
    ]


def _hyper_parameters(run: Run, account: Account) -> list[tuple[str, str]]:
    idle = idle_keys(run)
    names = [name for name in HYPER_PARAMETERS if name not in idle]
    names += account.hyper_parameters
    peft = run.of("config", "peft")
    own: Mapping[str, Any] = peft if isinstance(peft, Mapping) else {}
    if not run.of("config", "use_peft"):
        names = [name for name in names if not name.startswith("lora_")]
    elif (
        str(own.get("peft_type", "LORA")).upper() != "LORA"
    ):  # which has other settings, and no rank of LoRA's
        names = [name for name in names if name not in ("lora_r", "lora_alpha")]
    said = {
        "lora_r": own.get("r"),
        "lora_alpha": own.get("lora_alpha"),
    }  # these win over the defaults of the keys
    values = {name: said.get(name) or run.config.get(name) for name in names}
    rows: list[tuple[str, Any]] = [(name, value) for name, value in values.items() if value is not None]
    if own:
        rows.append(("peft", ", ".join(f"{name}: {value}" for name, value in own.items())))
    size = run.of("manifest", "effective_batch_size")
    if size is not None and not run.online:  # there it is prompts_per_step again
        rows.append(("effective batch size", size))
    return [(name, plain(value)) for name, value in rows]


def _results(run: Run, account: Account) -> list[tuple[str, str, str]]:
    """(measure, at the start, at the end)."""
    rows: list[tuple[str, str, str]] = []
    split = run.split
    place = run.place if split == "eval" else "collected" if run.online else "training"
    if acc := accuracy(run):
        interval = f" (95% interval {percent(acc.low)} to {percent(acc.high)})" if acc.low is not None else ""
        rows.append(
            (
                f"Accuracy, {place} comparisons",
                percent(acc.before) if acc.before is not None else "",
                percent(acc.after) + interval,
            )
        )
    for name, where, label, show in account.measures(run, split, place):
        before, after = run.metrics.ends(name, where)
        if after is not None:
            rows.append((label, "" if before is None else show(before), show(after)))
    return rows


def _environment_rows(run: Run) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = [
        (key, run.of("manifest", "machine", key)) for key in ("device", "gpu", "cores", "memory_gb")
    ]
    if (seconds := finite(run.of("manifest", "duration_s"))) is not None:
        rows.append(("time", duration(seconds)))
    versions = run.of("manifest", "versions")
    rows += list(versions.items()) if isinstance(versions, Mapping) else []
    return [
        (str(name).replace("memory_gb", "memory, GB"), plain(value))
        for name, value in rows
        if value not in (None, "")
    ]
