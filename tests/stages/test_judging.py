"""Who says how good sampled answers are."""

from __future__ import annotations

import math

import pytest

from prefopt.evaluation.rewards import FunctionReward
from prefopt.stages.judging import RewardJudge, against

PROMPTS = [("0", {"prompt": "Hi"}), ("1", {"prompt": "Ho"})]
WHOLE = [[True, True], [True, True]]


def test_a_win_and_a_tie_on_held_out_prompts(tmp_path):
    judge = RewardJudge(FunctionReward(lambda prompt, answer: len(answer)))
    found = against(judge, tmp_path, PROMPTS, [["abc"], ["a"]], ["ab", "b"], WHOLE)
    assert found == {"win_rate": 0.75, "judged_reward": 2.0, "baseline_reward": 1.5}


@pytest.mark.parametrize("wrong", ["abc", "b"])
def test_a_score_that_is_no_number_compares_nothing(wrong, tmp_path):
    """Of the model's answer or of the baseline's: a NaN loses every comparison without a word."""
    judge = RewardJudge(FunctionReward(lambda prompt, answer: math.nan if answer == wrong else 1.0, "short"))
    with pytest.raises(ValueError, match=f"short gives the score nan to the answer '{wrong}'"):
        against(judge, tmp_path, PROMPTS, [["abc"], ["a"]], ["ab", "b"], WHOLE)
