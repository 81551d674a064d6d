"""The experiments end to end at small sizes, and the command."""

from __future__ import annotations

import json
from itertools import count

import pytest
from click.testing import CliRunner

from prefopt.reproduce import lm
from prefopt.reproduce.bpo.sweeps import interior_optimum, sweep_lambda
from prefopt.reproduce.page import measured
from prefopt.reproduce.ties.frontier import (
    METHODS,
    at_matched_kl,
    better_at_matched_kl,
    frontier_claims,
    frontier_in_log_linear_world,
)
from prefopt.reproduce.ties.preservation import preservation


def numbers(result):
    return [(c.statement, c.measured, c.interval, c.verdict) for c in result.claims]


def test_matched_kl_compares_only_where_both_frontiers_are():
    # ours: score = KL on [1, 3]; theirs: score = KL - 0.5 on [2, 4]; common range [2, 3]
    ours = {0.1: ([3.0], [3.0]), 1.0: ([1.0], [1.0])}
    theirs = {0.1: ([4.0], [3.5]), 1.0: ([2.0], [1.5])}
    assert at_matched_kl(ours, theirs) == pytest.approx([0.5])
    with pytest.raises(ValueError, match="widen"):
        at_matched_kl(ours, {0.1: ([9.0], [1.0]), 1.0: ([8.0], [1.0])})


def test_frontier_claims_report_a_frontier_that_contradicts_the_paper():
    steps = count()

    def points(kl, score):
        """Three seeds, two beta, slightly different seeds."""
        return {
            b: (
                [kl * f + 0.001 * (next(steps) % 7) for _ in range(3)],
                [score * f + 0.001 * i for i in range(3)],
            )
            for b, f in ((1.0, 1.0), (0.1, 3.0))
        }

    paper = dict(zip(METHODS, (points(2, 5), points(1.5, 4), points(1, 5), points(1, 5)), strict=True))
    assert {c.verdict for c in frontier_claims(paper, "", "x")} == {"holds"}
    opposite = dict(zip(METHODS, (points(1, 5), points(1.5, 6), points(2, 5), points(2, 5)), strict=True))
    assert {c.verdict for c in frontier_claims(opposite, "", "x")} == {"does not hold here"}


def test_lambda_is_chosen_and_judged_on_different_seeds():
    # SBA(1.2) is best on the first half only: choosing and judging on the same seeds would call it the optimum
    names = ["DPO", "SBA(-0.5)", "SBA(0)", "SBA(0.5)", "SBA(1.2)", "SBA(2)"]
    by = {name: {"win": [50.0, 50.1, 50.2, 50.0]} for name in names}
    by["SBA(1.2)"] = {"win": [90.0, 90.0, 40.0, 40.1]}
    claim = interior_optimum(by, "any")
    assert claim.verdict == "does not hold here"
    assert "SBA(1.2)" in claim.how
    assert len(claim.per_seed) == 2


def test_same_seeds_same_numbers():
    def run():
        return numbers(sweep_lambda(range(2), pairs=128, epochs=1))

    assert run() == run()
    assert numbers(preservation(range(2), steps=5)) == numbers(preservation(range(2), steps=5))


@pytest.mark.slow
def test_ties_frontier_shows_claim_b_at_the_default_size():
    result = frontier_in_log_linear_world(range(5), steps=400)
    claim_b = [c for c in result.claims if "at the same KL" in c.statement]
    assert len(claim_b) == 4
    assert {c.verdict for c in claim_b} == {"holds"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The text world's cache, shared by the tests of this file and apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("PREFOPT_CACHE", str(folder))
        yield folder


def test_a_pair_of_frontiers_apart_is_not_measured_rather_than_a_crash():
    far = {1.0: ([1.0, 1.0], [5.0, 5.0]), 0.1: ([2.0, 2.0], [6.0, 6.0])}
    near = {1.0: ([8.0, 8.0], [5.0, 5.0]), 0.1: ([9.0, 9.0], [6.0, 6.0])}
    claim = better_at_matched_kl({"a": far, "b": near}, "a", "b", "x")
    assert claim.verdict == "inconclusive"
    assert "share no KL range" in claim.how
    assert measured(claim) == "not measured"


@pytest.mark.usefixtures("cache")
def test_language_model_scores_sum_to_the_models_own_likelihood():
    model, tokenizer = lm.reference(lm.QUICK)
    texts = [("Sort: pear fig", "fig pear"), ("Count: fig fig pear", "fig, 2")]
    batched = lm.logp(model, tokenizer, texts)
    for (prompt, completion), value in zip(texts, batched, strict=True):
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        whole = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), return_tensors="pt")[
            "input_ids"
        ]
        asked = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
        start = len(tokenizer(asked)["input_ids"])
        log_p = model(input_ids=whole).logits[0].log_softmax(-1)
        alone = sum(float(log_p[t - 1, whole[0, t]]) for t in range(start, whole.shape[1]))
        assert float(value) == pytest.approx(alone, rel=1e-4)


@pytest.mark.usefixtures("cache")
def test_reference_measures_no_drift_and_seeds_own_their_prompts():
    start, _ = lm.reference(lm.QUICK)
    found = lm.measure(start, lm.QUICK, seed=0)
    assert found.kl == pytest.approx(0.0, abs=1e-5)
    assert found.entropy > 0
    assert found == lm.measure(start, lm.QUICK, seed=0)
    blocks = [{row[0] for row in lm.rows(lm.QUICK, 2, seed)} for seed in (0, 1, None)]
    assert all(blocks)
    assert len(blocks[0] | blocks[1] | blocks[2]) == sum(map(len, blocks))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["ties", "bpo", "gradspo", "lpo"])
def test_command_prints_verdicts_and_names_its_files(name, tmp_path):
    from prefopt.cli.reproduce import command

    folder = tmp_path / "out"
    answer = CliRunner().invoke(
        command, [name, "--quick", "--seeds", "2", "--workers", "1", "--output", str(folder)]
    )
    assert answer.exit_code == 0, answer.output
    record = json.loads((folder / f"{name}.json").read_text())
    assert len(record["claims"]) >= 15
    words = answer.output.replace("│", " ").split()
    assert "verdicts mean nothing" in answer.output
    assert "inconclusive" in words
    for path in folder.iterdir():
        assert path.name in answer.output.replace("\n", "")
    assert {p.suffix for p in folder.iterdir()} == {".json", ".html", ".png", ".svg"}


def test_unknown_name_is_refused_with_the_choices():
    from prefopt.cli.reproduce import command

    answer = CliRunner().invoke(command, ["tie"])
    assert answer.exit_code == 2
    assert "ties" in answer.output
    assert "bpo" in answer.output
