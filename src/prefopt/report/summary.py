"""The run at a glance: key figures and a summary in sentences."""

from __future__ import annotations

from prefopt.report.account import Account
from prefopt.report.facts import Figure, accuracy, at_start, history, last, machine, steps_done
from prefopt.report.format import duration, finite, number, percent
from prefopt.report.load import Run


def key_figures(run: Run, account: Account) -> list[Figure]:
    """The numbers for the top of the page, those that the run has."""
    figures = [*_accuracy(run), *_reward(run, account), *account.figures(run)]
    if (seconds := finite(run.of("manifest", "duration_s"))) is not None:
        steps, where = steps_done(run), machine(run)
        note = " ".join(
            x for x in (f"{number(steps)} steps" if steps else "", f"on {where}" if where else "") if x
        )
        figures.append(Figure("Time", duration(seconds), "", note))
    return figures


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
        Figure(label, percent(acc.after), start, note, history=history(run, "rewards/accuracies", run.split))
    ]


def _reward(run: Run, account: Account) -> list[Figure]:
    before, after = run.metrics.ends("reward", "eval")
    if after is None:
        return []
    worse = before is not None and after < before
    label, note = account.reward_of_samples(run)
    return [
        Figure(
            label, number(after, 3), "" if before is None else number(before, 3), note,
            "warn" if worse else "", history(run, "reward"),
        )
    ]  # fmt: skip


def summary(run: Run, account: Account) -> str:
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
    parts = [
        opening + ".",
        _accuracy_sentence(run, account),
        account.sentence(run),
        _score_sentence(run, account),
    ]
    return " ".join(part for part in parts if part)


def _accuracy_sentence(run: Run, account: Account) -> str:
    acc = accuracy(run)
    if acc is None:
        return "Accuracy on comparisons was not measured."
    where = "of the pairs that it collects" if run.online else f"of {acc.place} comparisons"
    sentence = f"{account.claim(run)} in {percent(acc.after)} {where}"
    if acc.before is not None:
        sentence += f", {percent(acc.before)} {at_start(run, 'rewards/accuracies', run.split)}"
    if acc.clear is False:
        sentence += "; that change is within sampling error"
    return sentence + "."


def _score_sentence(run: Run, account: Account) -> str:
    before, after = run.metrics.ends("reward", "eval")
    kl = last(run.metrics, "kl", "eval")
    own = account.samples_word
    if after is None:
        if kl is None:
            return ""
        return f"Its own {own} moved {number(kl, 3)} nats a sequence (KL) away from the reference."
    if before is None:
        sentence = f"Its own {own} score {number(after, 3)}"
    elif after == before:
        sentence = f"The score of its own {own} stayed at {number(after, 3)}"
    else:
        verb = "rose" if after > before else "fell"
        sentence = f"The score of its own {own} {verb} from {number(before, 3)} to {number(after, 3)}"
    return sentence + (f", at a KL of {number(kl, 3)} nats a sequence." if kl is not None else ".")
