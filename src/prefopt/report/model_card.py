"""`README.md` of a run: the model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefopt.files import PAGES, write_whole
from prefopt.report.account import Account, idle_keys, read
from prefopt.report.facts import accuracy
from prefopt.report.findings import findings
from prefopt.report.format import duration, finite, number, percent, plain
from prefopt.report.load import Run
from prefopt.report.loading import ADAPTER_FILE, HUB_ID, base_model, is_hub_id, read_json
from prefopt.report.papers import paper_link

FOLDERS = re.compile(r"(?<![\w/.])/(?!/)(?:[^/\s`'\"|<>]+/)+")
"""The folders of an absolute path, which end before the last name."""
FAMILIES = {"dpo": ("dpo", "direct preference"), "kto": ("kto",)}
"""Tags that other libraries give models, and the words in a method's name or title that say it is one of them."""
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


def hub_card(run_dir: str | Path, repo_id: str, model: str = "model") -> str:
    """The card as readers on the hub need it: they have the model, and nothing else of the run's folder.

    It names no folders of this machine, points to no file that was not uploaded, and loads the model by its id.

    Args:
        run_dir: folder of a run.
        repo_id: owner/name.
        model: the folder within it that is uploaded: "model", or "merged".

    Raises:
        FileNotFoundError: `run_dir` is not a folder.
    """
    run, account = read(run_dir)
    return FOLDERS.sub("", model_card(replace(run, published=repo_id, model=model), account))


def folder_card(model: Path, repo_id: str) -> str:
    """The card of a model of which no run is there: the one that lies beside it, else what its files say.

    Args:
        model: folder of the model.
        repo_id: owner/name.
    """
    import yaml

    if (model / "README.md").is_file():
        return (model / "README.md").read_text("utf-8")
    adapter = read_json(model / ADAPTER_FILE)
    diffusers = any(
        (model / name).is_file() for name in ("model_index.json", "pytorch_lora_weights.safetensors")
    )
    name = repo_id.partition("/")[2]
    front: dict[str, Any] = {
        "library_name": "peft" if adapter else "diffusers" if diffusers else "transformers",
        "model_name": name,
    }
    base = str(adapter.get("base_model_name_or_path") or "")
    if HUB_ID.fullmatch(base) and not Path(base).exists():
        front |= {"base_model": base, "base_model_relation": "adapter"}
    tags = [str(adapter["peft_type"]).lower()] if adapter.get("peft_type") else []
    front["tags"] = [*tags, "prefopt"]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {name}\n"


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
        pictures=[] if run.published else account.pictures(run),
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
    front: dict[str, Any] = {
        "library_name": loading.library,
        "model_name": run.published.partition("/")[2] or " ".join(run.name.split()),
    }
    base = base_model(run)
    # the hub resolves these as links, so local folders and generated data stay out
    if is_hub_id(run, base):
        front["base_model"] = base
        front["base_model_relation"] = "adapter" if loading.adapter else "finetune"
    source = str(run.of("manifest", "data", "source") or "")
    if is_hub_id(run, source):
        front["datasets"] = [source]
    if own.pipeline_tag:
        front["pipeline_tag"] = own.pipeline_tag
    method = str(run.of("manifest", "method") or run.of("config", "method") or "")
    tags = [
        "prefopt",
        "preference-optimization",
        *method_tags(method, str(run.of("manifest", "title") or "")),
    ]
    tags += own.tags
    if loading.adapter:
        tags.append(adapter_kind(run))
    if arxiv := run.of("manifest", "paper", "arxiv"):
        tags.append(f"arxiv:{arxiv}")
    front["tags"] = list(dict.fromkeys(tags))
    return front


def method_tags(method: str, title: str = "") -> list[str]:
    """Tags by which models of a method are found: the names of its losses, and what family they are of.

    Example:
        >>> method_tags("dpo_rk+0.2*sft"), method_tags("d3po", "Direct preference for denoising ...")
        (['dpo_rk', 'sft', 'dpo'], ['d3po', 'dpo'])
    """
    names = [" ".join(term.rpartition("*")[2].split()) for term in method.split("+")]
    words = f"{method} {title}".lower()
    return [name for name in names if name] + [
        family for family, marks in FAMILIES.items() if any(mark in words for mark in marks)
    ]


def adapter_kind(run: Run) -> str:
    """What peft calls the kind of a run's adapter, in small letters."""
    recorded = read_json(run.model_dir / ADAPTER_FILE).get("peft_type") or run.of(
        "config", "peft", "peft_type"
    )
    return str(recorded or "LORA").lower()


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
