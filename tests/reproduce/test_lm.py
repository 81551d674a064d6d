"""The small language model that papers share."""

from __future__ import annotations

import pytest

from prefopt.reproduce import lm
from prefopt.reproduce.core import Asked


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


def test_measures_are_gathered_by_setting_and_seed(monkeypatch):
    made = []
    monkeypatch.setattr(lm, "rows", lambda size, seeds, seed: made.append((seeds, seed)))

    def one_run(method, beta, seed, seeds, size):
        assert (seeds, size) == (3, lm.QUICK)
        return {"score": len(method) + beta + 100 * seed, "seed": seed}

    settings = [("dpo", 0.25), ("kto", 0.5)]
    found = lm.over_seeds(Asked(3), "T4", one_run, settings, lm.QUICK)
    assert found == {
        ("dpo", 0.25): {"score": [3.25, 103.25, 203.25], "seed": [0, 1, 2]},
        ("kto", 0.5): {"score": [3.5, 103.5, 203.5], "seed": [0, 1, 2]},
    }
    assert made == [(3, 0), (3, None)]  # before processes would race for them
