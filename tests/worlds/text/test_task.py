from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.worlds import get_world
from prefopt.worlds.text.task import FAULTS, LEXICON, TASKS, demonstrate, edit_distance, words_of

WORLD = get_world("text")
words = st.lists(st.sampled_from(LEXICON), min_size=1, max_size=6)
prompts = st.builds(lambda task, w: f"{task}: {' '.join(w)}", st.sampled_from(TASKS), words)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Sort: pear fig apple", "apple fig pear"),
        ("Reverse: pear fig apple", "apple fig pear"),
        ("Unique: fig pear fig", "fig pear"),
    ],
)
def test_reference_answers(prompt, answer):
    assert WORLD.reference_answer(prompt) == answer
    assert WORLD.verify(prompt, answer) == 1


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("apple fig pear", 1),
        ("Apple, fig, pear.", 1),  # case and punctuation are free
        ("apple fig", 2 / 3),  # one word missing
        ("apple pear fig", 1 / 3),  # two words wrong
        ("sure: apple fig pear", 3 / 4),  # one word too many
        ("here you go: apple fig pear hope this helps", 3 / 9),
        ("apple fig kiwi", 2 / 3),
        ("kiwi", 0),
        ("", 0),
        (" ,.", 0),
    ],
)
def test_scores(completion, score):
    assert WORLD.verify("Sort: pear fig apple", completion) == pytest.approx(score)


@given(prompts, st.one_of(words.map(" ".join), st.text(max_size=40)))
def test_score_is_one_exactly_for_the_right_words(prompt, completion):
    score = WORLD.verify(prompt, completion)
    assert 0 <= score <= 1
    assert (score == 1) == (words_of(completion) == words_of(WORLD.reference_answer(prompt)))


@given(words, words)
def test_edit_distance_is_levenshteins(a, b):
    @cache
    def slow(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(slow(i - 1, j) + 1, slow(i, j - 1) + 1, slow(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    assert edit_distance(a, b) == slow(len(a), len(b))


def test_score_texts_pairs_prompts_with_completions():
    assert WORLD.score_texts(["Sort: fig bat", "Reverse: fig bat"], ["bat fig", "fig bat"]) == [1, 0]
    with pytest.raises(ValueError, match="zip"):
        WORLD.score_texts(["Sort: fig bat"], [])


@pytest.mark.parametrize("prompt", ["", "Sort:", "Sort: ...", "sort: fig bat", "Add: 1 2", "fig bat"])
def test_a_foreign_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match="not a prompt of the text world"):
        WORLD.verify(prompt, "fig")


def mean_demonstration_score(fault_rate: float) -> float:
    rng = random.Random(0)
    prompts = WORLD.prompts(400)
    return sum(WORLD.verify(p, demonstrate(rng, p, LEXICON, fault_rate)) for p in prompts) / 400


def test_demonstrations_are_right_without_faults_and_worse_with_more():
    assert mean_demonstration_score(0.0) == 1
    assert 0.9 > mean_demonstration_score(0.4) > mean_demonstration_score(0.7) + 0.05 > 0.6


def test_each_fault_comes_at_its_own_rate():
    rng = random.Random(0)
    texts = [demonstrate(rng, "Sort: pear fig apple", LEXICON, 0.7) for _ in range(4000)]
    preambles = sum(text.startswith(("sure:", "here you go:")) for text in texts)
    sign_offs = sum(text.endswith("hope this helps") for text in texts)
    assert preambles / 4000 == pytest.approx(0.7 * FAULTS["preamble"], abs=0.03)
    assert sign_offs / 4000 == pytest.approx(0.7 * FAULTS["sign_off"], abs=0.03)


def test_splits_are_disjoint_prefixes_hold_and_seeds_differ():
    train, test = WORLD.prompts(2000), WORLD.prompts(500, "test")
    assert len(set(train)) == 2000
    assert len(set(test)) == 500
    assert not set(train) & set(test)
    assert WORLD.prompts(30) == train[:30]
    other = get_world("text", seed=1)
    assert other.prompts(30) != train[:30]
    assert not set(other.prompts(2000)) & set(test)  # the split is by the prompt, not by the seed


def test_prompts_follow_the_settings():
    world = get_world("text", min_words=2, max_words=3)
    found = world.prompts(300)
    assert {len(p.split()) - 1 for p in found} == {2, 3}
    assert {p.split(":")[0] for p in found} == set(TASKS)
    for prompt in found:
        listed = prompt.split()[1:]
        assert (len(set(listed)) < len(listed)) == prompt.startswith("Unique")


def test_errors_teach():
    with pytest.raises(
        ValueError, match="no world is called 'txt'; there are: caption, film, motion, picture, scene, text"
    ):
        get_world("txt")
    with pytest.raises(TypeError, match="did you mean max_words"):
        get_world("text", max_word=3)
    with pytest.raises(ValueError, match="2 <= min_words <= max_words"):
        get_world("text", min_words=6)
    with pytest.raises(ValueError, match="multiple of 32"):
        get_world("text", hidden_size=40)
    with pytest.raises(ValueError, match="fault_rate must lie"):
        get_world("text", fault_rate=1.5)
    with pytest.raises(ValueError, match="split must be train or test"):
        WORLD.prompts(3, "validation")
    with pytest.raises(ValueError, match="distinct train prompts asked for"):
        get_world("text", min_words=2, max_words=2).prompts(5000)
