"""Every objective through a whole run: it starts where its formula says, learns, and does not mind how the
reference is held. A new objective is a row here without any change."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from prefopt import methods, objectives
from prefopt.objectives.sides import Score, Sides

ROWS = [
    {
        "prompt": "Sort: pear fig apple",
        "chosen": " apple fig pear",
        "rejected": " pear apple fig pear",
        "reference": " apple fig pear fig",
    },
    {
        "prompt": "Count: red red blue",
        "chosen": " red two blue one",
        "rejected": " blue",
        "reference": " blue red red",
    },
]
QUIET = {
    "eval_size": 0,
    "sample_prompts": 0,
    "save_strategy": "no",
    "logging_steps": 1,
    "eval_steps": 1000,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "warmup_ratio": 0.0,
}
# what must rise where it is not the margin
RISES = {"sft": "train_rows_logps/chosen", "tpo": "train_rows_tpo/nll"}
# DiscoPOP's loss is not monotone: at tau = 0.05 its slope at zero margin is +0.78, towards the local minimum on the
# negative side that its authors plot, so small margins fall while the loss falls; TPO's likelihood outweighs its margin
FALLS = {"discopop", "tpo"}


def train(name: str, model: Path, data: Path, folder: Path, **options: Any) -> prefopt.TrainResult:
    given = {**QUIET, "learning_rate": 1e-3, "max_steps": 10, **options}
    found = methods.find(name)
    if found is not None and found.stages:  # several runs: this is about the one in which a loss is at work
        given["stage"] = "gradient"
    return prefopt.train(name, model=model, data=data, output_dir=str(folder), **given)


def column(result: prefopt.TrainResult, name: str) -> list[float]:
    return [line[name] for line in result.history if name in line]


def scores_by_hand(model_dir: Path, text: str, start: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token log-probabilities of the completion and its sum of log sum_v pi^2, without any of prefopt."""
    tokenizer, model = (
        AutoTokenizer.from_pretrained(model_dir),
        AutoModelForCausalLM.from_pretrained(model_dir),
    )
    ids = tokenizer(text + tokenizer.eos_token, return_tensors="pt")["input_ids"]
    first = len(tokenizer(start)["input_ids"])
    with torch.no_grad():
        logp_TV = model(ids).logits[0].log_softmax(-1)[first - 1 : -1]
    return logp_TV.gather(-1, ids[0, first:, None])[:, 0], (2 * logp_TV).logsumexp(-1).sum()


def sides_by_hand(model_dir: Path, objective: Any) -> Sides:
    """Both sides of the two comparisons before the first step."""
    values: dict[str, Any] = {}
    for side, key in (("w", "chosen"), ("l", "rejected")):
        scored = [scores_by_hand(model_dir, row["prompt"] + row[key], row["prompt"]) for row in ROWS]
        logp = torch.stack([tokens.sum() for tokens, _ in scored])
        values |= {
            f"logp_{side}": logp,
            f"rho_{side}": torch.zeros(2) if objective.needs_reference else logp,
            f"length_{side}": torch.tensor([float(len(tokens)) for tokens, _ in scored]),
            f"rho_tokens_{side}": torch.zeros(2, 9),
            f"changed_{side}": torch.zeros(2, 9),
            f"log_p2_{side}": torch.stack([p2 for _, p2 in scored]),
        }
    gold = [scores_by_hand(model_dir, row["prompt"] + row["reference"], row["prompt"])[0] for row in ROWS]
    third = Score(
        logp=torch.stack([tokens.sum() for tokens in gold]),
        length=torch.tensor([float(len(tokens)) for tokens in gold]),
    )
    return Sides(**values, branches={"reference": third})


def start_by_hand(model_dir: Path, name: str) -> float:
    objective = objectives.get(name)
    sides = sides_by_hand(model_dir, objective)
    outcome = None
    if objective.unpaired:
        outcome = torch.tensor([[1.0, 0, 0]] * 2 + [[0, 1.0, 0]] * 2)
        both = {k: torch.cat([getattr(sides, f"{k}_w"), getattr(sides, f"{k}_l")]) for k in ("rho", "logp")}
        beside = {"mismatched": Score(rho=torch.zeros(4))}
        sides = Sides(rho_w=both["rho"], rho_l=torch.zeros(4), logp_w=both["logp"], branches=beside)
    state = objective.next_state(objective.initial_state(), objective.statistics(sides, outcome))
    return float(objective.losses(sides, outcome, state).mean())


@pytest.mark.parametrize(
    "name", [n for n, m in methods.all_methods().items() if m.modality in ("any", "text")]
)
def test_method(name, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    result = train(name, tiny_model, data, tmp_path / "run")

    watched = column(result, RISES.get(name, "train_rows_rewards/margins"))
    risen = watched[-1] - watched[0]
    assert (-risen if name in FALLS else risen) > 1e-3, watched
    losses = column(result, "loss")
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    # dropping this to "close to the first logged loss" would let a wrong reference pass
    assert column(result, "train_rows_loss")[0] == pytest.approx(start_by_hand(tiny_model, name), rel=1e-5)

    if objectives.get(name).needs_reference:
        live = train(name, tiny_model, data, tmp_path / "live", reference="live")
        assert column(live, "loss") == pytest.approx(losses, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "given", "other", "same"),
    [
        ("aot", {"ld_alpha": 0.3}, "ld_dpo", {"a": 0.3}),  # of one row a batch, so that nothing is sorted
        (
            "hinge",
            {"use_weighting": True, "beta": 1e-3},
            "wpo",
            {"beta": 1e-3},
        ),  # steep alike, log 2 against 1
        ("dpo", {"rpo_alpha": 0.2, "average": "batch"}, "dpo+0.2*sft", {"average": "batch"}),
    ],
)
def test_keys_that_combine_with_a_loss(name, given, other, same, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    alone = {"per_device_train_batch_size": 1, "max_steps": 4}
    runs = [
        train(method, tiny_model, data, tmp_path / method, **{"beta": 0.1, **alone, **keys})
        for method, keys in ((name, given), (other, same))
    ]
    first, second = (column(run, "loss") for run in runs)
    assert len(set(first)) > 1
    if name == "hinge":
        assert first[0] == pytest.approx(second[0] / math.log(2), rel=1e-4)
        assert column(runs[0], "wpo/weight")[0] == pytest.approx(first[0], rel=1e-4)
    else:
        assert first == pytest.approx(second, rel=1e-6)
