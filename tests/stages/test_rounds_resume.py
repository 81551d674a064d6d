"""Rounds that broke off somewhere go on there: the weights of the end are the same bits, and nothing is sampled twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefopt.config import ConfigError
from prefopt.generation.local import LocalGenerator
from prefopt.modalities.text import answers
from prefopt.stages import rounds
from prefopt.training.course import Course
from stages.staged_rig import ROWS, Asked, Interrupted, longest, rows, start_and_kill, train, weights, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def straight(data, tiny_model, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patch:
        # scores cached by other tests, in batches of another make-up, differ in the last digits
        patch.setenv("PREFOPT_CACHE", str(folder.parent / "cache"))
        train("ssapo", tiny_model, data, folder, epsilon=0.2, beta=0.5)
    return folder


def between_answers(monkeypatch):
    return Asked(monkeypatch, stop_after=2)


def after_answers(monkeypatch):
    monkeypatch.setattr(answers, "score", broken)


def after_labels(monkeypatch):
    monkeypatch.setattr(rounds, "best_and_worst", broken)


def after_pairs(monkeypatch):
    pairs_then = rounds.write_rows

    def stop(path, lines):
        pairs_then(path, lines)
        if path.name == "pairs.jsonl":
            raise Interrupted

    monkeypatch.setattr(rounds, "write_rows", stop)


def in_training(monkeypatch):
    after_step = Course.after_step

    def stop(course):
        after_step(course)
        if "stages/1/" in str(course.record.folder) and course.loop.step == 1:
            raise Interrupted

    monkeypatch.setattr(Course, "after_step", stop)


def in_training_before_a_checkpoint(monkeypatch):
    save = Course.save_checkpoint

    def stop(course):
        if "stages/1/" in str(course.record.folder):
            raise Interrupted
        save(course)

    monkeypatch.setattr(Course, "save_checkpoint", stop)


def broken(*given, **named):
    raise Interrupted


BREAKS = [
    between_answers,
    after_answers,
    after_labels,
    after_pairs,
    in_training,
    in_training_before_a_checkpoint,
]


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda b: b.__name__)
def test_broken_off_and_resumed_is_bit_identical(
    breaks, straight, tiny_model, data, own_cache, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    options = {"epsilon": 0.2, "beta": 0.5}
    with monkeypatch.context() as patch:
        breaks(patch)
        with pytest.raises(Interrupted):
            train("ssapo", tiny_model, data, folder, **options)
    journal = folder / "stages/1/answers.jsonl"
    there = len(rows(journal)) - 1 if journal.exists() else 0
    assert there == (4 if breaks is between_answers else 6)
    asked = Asked(monkeypatch)
    train("ssapo", tiny_model, data, folder, resume=True, **options)
    assert weights(folder) == weights(straight)
    assert len(asked.samples) == 2 * 3 * 2 - there
    for name in ("answers", "labels", "pairs"):
        assert rows(folder / f"stages/2/{name}.jsonl") == rows(straight / f"stages/2/{name}.jsonl")
    # and no line of the attempt that is not continued
    steps = [r["step"] for r in rows(folder / "stages/1/run/metrics.jsonl") if r["split"] == "train"]
    assert steps == sorted(set(steps))


def test_killed_in_a_round_and_resumed_is_bit_identical(straight, tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    checkpoint = folder / "stages/1/run/checkpoints/step-00000001"
    start_and_kill("ssapo", tiny_model, data, folder, checkpoint.exists, epsilon=0.2, beta=0.5)
    assert not (folder / "model").exists()
    train("ssapo", tiny_model, data, folder, resume=True, epsilon=0.2, beta=0.5)
    assert weights(folder) == weights(straight)


def test_a_finished_method_is_not_done_again(straight, tiny_model, data, monkeypatch):
    asked = Asked(monkeypatch)
    monkeypatch.setattr(Course, "run", broken)
    before = weights(straight)
    found = train("ssapo", tiny_model, data, straight, epsilon=0.2, beta=0.5, resume=True)
    assert asked.samples == []
    assert weights(straight) == before
    assert "eval_rewards/accuracies" in found.metrics


def test_a_judge_is_not_asked_again(tiny_model, data, own_cache, tmp_path, monkeypatch):
    told = []

    def judge(prompt, answer):
        told.append(answer)
        return longest(prompt, answer)

    with monkeypatch.context() as patch:
        after_labels(patch)
        with pytest.raises(Interrupted):
            train("online_dpo", tiny_model, data, tmp_path / "run", reward=judge, rounds=1)
    assert len(told) == 6
    train("online_dpo", tiny_model, data, tmp_path / "run", reward=judge, rounds=1, resume=True)
    assert len(told) == 6


@pytest.mark.parametrize("change", [{"epsilon": 0.3}, {"rounds": 3}, {"seed": 5}, {"response_tokens": 9}])
def test_another_setting_is_refused(change, straight, tiny_model, data):
    options = {"epsilon": 0.2, "beta": 0.5} | change
    before = weights(straight)
    with pytest.raises(
        ConfigError, match=rf"begun with other {next(iter(change))}: resume with its config.yaml"
    ):
        train("ssapo", tiny_model, data, straight, resume=True, **options)
    assert weights(straight) == before


def test_resuming_needs_something_to_resume(tiny_model, data, tmp_path):
    with pytest.raises(ConfigError, match="there is no run to resume"):
        train("ssapo", tiny_model, data, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="resume it with resume=true"):
        train("ssapo", tiny_model, data, tmp_path / "run", resume=str(tmp_path / "checkpoint"))
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_kept_unless_told_otherwise(tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    train("spa", tiny_model, data, folder, rounds=1)
    (folder / "notes.txt").write_text("mine")
    before = weights(folder)
    with pytest.raises(ConfigError, match="already holds a run"):
        train("spa", tiny_model, data, folder, rounds=1, seed=3)
    # data that cannot be used are found before anything is removed
    with pytest.raises(ConfigError, match="seed_pairs"):
        train("spa", tiny_model, data, folder, rounds=1, seed_pairs=100, overwrite=True)
    assert weights(folder) == before
    train("spa", tiny_model, data, folder, rounds=1, seed=3, overwrite=True)
    assert weights(folder) != before
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "stages" / "2").exists()


def test_files_that_no_run_made_stay(tiny_model, data, own_cache, tmp_path, monkeypatch):
    """A folder without a run may hold anything; only what must be written is written."""
    folder = tmp_path / "mine"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "precious").write_text("mine")
    monkeypatch.setattr(LocalGenerator, "generate", broken)
    with pytest.raises(Interrupted):
        train("spa", tiny_model, data, folder, rounds=1)
    assert (folder / "model" / "precious").exists()
