"""The run at a glance: key figures and a summary in sentences. What only runs on images have is in `image_summary.py`."""

from __future__ import annotations

from prefopt.report.facts import DISPLACED, Figure, accuracy, at_start, last, machine, steps_done
from prefopt.report.findings import LONGER
from prefopt.report.format import duration, finite, number, percent
from prefopt.report.image_summary import image_figures, image_sentence, preference, scored_by
from prefopt.report.load import Run


def key_figures(run: Run) -> list[Figure]:
    """The numbers for the top of the page, those that the run has."""
    figures = [*_accuracy(run), *_reward(run)]
    figures += image_figures(run) if run.images else _text_figures(run)
    if (seconds := finite(run.of("manifest", "duration_s"))) is not None:
        steps, where = steps_done(run), machine(run)
        note = " ".join(
            x for x in (f"{number(steps)} steps" if steps else "", f"on {where}" if where else "") if x
        )
        figures.append(Figure("Time", duration(seconds), "", note))
    return figures


def _history(run: Run, name: str, split: str = "eval") -> list[float]:
    return run.metrics.points(name, split).finite().values


def _accuracy(run: Run) -> list[Figure]:
    acc = accuracy(run)
    if acc is None:
        return []
    label, note = f"{acc.place.capitalize()} accuracy", ""
    if acc.low is not None:
        note = f"95% interval {percent(acc.low)} to {percent(acc.high)}, {number(acc.count)} comparisons"
    elif run.online:
        label, note = "Accuracy on new pairs", "of the pairs just collected"
    elif not acc.held_out:
        note = "on training rows: nothing is held out"
    start = "" if acc.before is None else percent(acc.before)
    return [
        Figure(label, percent(acc.after), start, note, history=_history(run, "rewards/accuracies", run.split))
    ]


def _reward(run: Run) -> list[Figure]:
    before, after = run.metrics.ends("reward", "eval")
    if after is None:
        return []
    worse = before is not None and after < before
    label, note = "Verifier reward", "exact score of sampled answers"
    if run.images:
        label, note = "Reward of samples", scored_by(run)
    return [
        Figure(
            label, number(after, 3), "" if before is None else number(before, 3), note,
            "warn" if worse else "", _history(run, "reward"),
        )
    ]  # fmt: skip


def _text_figures(run: Run) -> list[Figure]:
    figures: list[Figure] = []
    metrics, split = run.metrics, run.split
    kl, length = last(metrics, "kl", "eval"), last(metrics, "sample_length", "eval")
    if kl is not None:
        per_token = f", {number(kl / length, 2)} a token" if length else ""
        figures.append(
            Figure(
                "KL to the reference", number(kl, 3), "", f"nats a sequence{per_token}",
                history=_history(run, "kl"),
            )
        )  # fmt: skip
    if (moved := last(metrics, "displacement", split)) is not None:
        figures.append(
            Figure(
                "Displacement", percent(moved), "", "chosen answers below the reference",
                "warn" if moved >= DISPLACED else "", _history(run, "displacement", split),
            )
        )  # fmt: skip
    before, after = metrics.ends("sample_length", "eval")
    if after is not None:
        grown = before is not None and before > 0 and after / before >= LONGER
        figures.append(
            Figure(
                "Sampled length", number(after, 3), "" if before is None else number(before, 3), "tokens an answer",
                "warn" if grown else "", _history(run, "sample_length"),
            )
        )  # fmt: skip
    return figures


def summary(run: Run) -> str:
    """The run in plain sentences: what was trained on what, and what came of it. Says what was not measured."""
    title = str(
        run.of("manifest", "title")
        or run.of("manifest", "method")
        or run.of("config", "method")
        or "This run"
    )
    examples = finite(run.of("manifest", "data", "examples")) or finite(run.of("data", "examples"))
    steps = steps_done(run)
    opening = f"{title}"
    opening += f" on {number(examples)} {'prompts' if run.online else 'examples'}" if examples else ""
    opening += f", {number(steps)} steps" if steps else ""
    opening += ", not finished" if run.of("manifest", "status") not in (None, "finished") else ""
    parts = [opening + ".", _accuracy_sentence(run)]
    if run.images:
        parts.append(image_sentence(run))
    parts.append(_score_sentence(run))
    return " ".join(part for part in parts if part)


def _accuracy_sentence(run: Run) -> str:
    acc = accuracy(run)
    if acc is None:
        return "Accuracy on comparisons was not measured."
    claim = preference(run) if run.images else "The policy ranks the better answer higher"
    where = "of the pairs that it collects" if run.online else f"of {acc.place} comparisons"
    sentence = f"{claim} in {percent(acc.after)} {where}"
    if acc.before is not None:
        sentence += f", {percent(acc.before)} {at_start(run, 'rewards/accuracies', run.split)}"
    if acc.clear is False:
        sentence += "; that change is within sampling error"
    return sentence + "."


def _score_sentence(run: Run) -> str:
    before, after = run.metrics.ends("reward", "eval")
    kl = last(run.metrics, "kl", "eval")
    own = "images" if run.images else "answers"
    if after is None:
        if kl is None:
            return ""
        return f"Its own answers moved {number(kl, 3)} nats a sequence (KL) away from the reference."
    if before is None:
        sentence = f"Its own {own} score {number(after, 3)}"
    elif after == before:
        sentence = f"The score of its own {own} stayed at {number(after, 3)}"
    else:
        verb = "rose" if after > before else "fell"
        sentence = f"The score of its own {own} {verb} from {number(before, 3)} to {number(after, 3)}"
    return sentence + (f", at a KL of {number(kl, 3)} nats a sequence." if kl is not None else ".")
