"""Terms beside the comparison of conditions: own draws, the reward of consistency, losing conditions of the present model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import prefopt
import tiny_pipelines
from modalities.battery import control_rows
from modalities.control.edges import DETECTOR, condition_rows, edge_rows
from modalities.image.image_runs import QUIET, column, record
from prefopt.comparisons import TIE, Comparison, Encoded
from prefopt.config import ConfigError
from prefopt.likelihoods.process import Process
from prefopt.modalities.control.consistency import Consistency
from prefopt.modalities.control.detectors import find
from prefopt.modalities.control.detectors.canny import TorchCanny
from prefopt.modalities.control.likelihood import ControlLikelihood, EncodedControl
from prefopt.modalities.control.models import denoise_controlled, load_control
from prefopt.modalities.control.rows import load_control_comparisons
from prefopt.modalities.control.setup import encoded
from prefopt.modalities.control.store import CachedControls


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_control(tmp_path_factory.mktemp("control") / "sd")


@pytest.fixture(scope="module")
def scored(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, ControlLikelihood, list[Encoded]]:
    """A loaded model, its likelihood, and examples."""
    rows = condition_rows(tmp_path_factory.mktemp("rows"))
    found = load_control_comparisons(rows).examples
    loaded = load_control(str(model))
    store = CachedControls(loaded, 32, "center")
    items = [item for e in found for item in e.items]
    store.add_images({item.sample.digest: item.sample for item in items})
    store.add_controls({item.condition["control"].digest: item.condition["control"] for item in items})
    store.add_prompts([item.condition["prompt"] for item in items])
    likelihood = ControlLikelihood(
        process=Process.from_scheduler(loaded.scheduler),
        network=partial(denoise_controlled, loaded.family),
        store=store,
        own_draws=True,
    )
    examples = [Encoded(e.id, tuple(encoded(store, item) for item in e.items), e.comparisons) for e in found]
    return loaded, likelihood, examples


# -- own draws -----------------------------------------------------------------------------------------------


def items_at(likelihood: ControlLikelihood, examples: list[Encoded], epoch: int = 0) -> list[EncodedControl]:
    return [item for e in examples for item in likelihood.at(e, epoch).items]


def test_the_side_that_won_is_drawn_again_and_the_pair_stays_as_it_is(scored):
    _, likelihood, examples = scored
    items = items_at(likelihood, examples)
    assert [item.won for item in items] == [True, False] * len(examples)
    with_own, without = likelihood.plan(items), replace(likelihood, own_draws=False).plan(items)
    assert torch.equal(with_own.noise_NCHW, without.noise_NCHW)
    assert torch.equal(with_own.t_N, without.t_N)
    assert without.own is None
    own = with_own.own
    assert len(own.t_N) == len(examples)
    winners = with_own.won_N.nonzero()[:, 0]
    assert torch.equal(own.conditions["control"], with_own.conditions["control"][winners])
    assert (own.t_N != with_own.t_N[winners]).any()
    assert not torch.isclose(own.noise_NCHW, with_own.noise_NCHW[winners]).flatten(1).all(1).any()
    again = likelihood.plan(items).own
    assert torch.equal(own.noise_NCHW, again.noise_NCHW)  # counted
    assert not torch.equal(own.noise_NCHW, likelihood.plan(items_at(likelihood, examples, 1)).own.noise_NCHW)


def test_scores_of_own_draws_are_those_of_their_own_plan(scored):
    loaded, likelihood, examples = scored
    plan = likelihood.plan(items_at(likelihood, examples))
    with torch.no_grad():
        scores = likelihood.score(loaded.model, plan, extras={"logp_own"})
        alone = likelihood.score(loaded.model, plan.own).logp_N
        plain = likelihood.score(loaded.model, plan)
    assert torch.equal(scores.logp_own_N[plan.won_N], alone)
    assert not scores.logp_own_N[~plan.won_N].any()
    assert torch.equal(scores.logp_N, plain.logp_N)
    assert plain.logp_own_N is None


def test_votes_draw_every_side_that_has_some(scored):
    _, likelihood, examples = scored
    (edge,) = examples[0].comparisons

    def won(outcome: tuple[float, float, float]) -> list[bool]:
        changed = replace(
            examples[0], comparisons=(Comparison(edge.first, edge.second, outcome=type(TIE)(*outcome)),)
        )
        return [item.won for item in likelihood.at(changed, 0).items]

    assert won((0.7, 0.3, 0.0)) == [True, True]
    assert won((0.0, 1.0, 0.0)) == [False, True]
    assert won((0.0, 0.0, 1.0)) == [False, False]


def test_dropped_conditions_are_black_and_only_in_own_draws(scored):
    _, likelihood, examples = scored
    dropping = replace(likelihood, condition_dropout=0.5)
    seen = [dropping.plan(items_at(dropping, examples, epoch)) for epoch in range(20)]
    black = torch.cat([plan.own.conditions["control"].flatten(1).amax(1) == 0 for plan in seen])
    assert 0.3 < black.double().mean() < 0.7
    assert all(plan.conditions["control"].flatten(1).amax(1).gt(0).all() for plan in seen)
    evaluated = dropping.plan(items_at(dropping, examples, -1))
    assert evaluated.own.conditions["control"].flatten(1).amax(1).gt(0).all()


def test_the_first_timestep_is_not_drawn_and_all_others_are(scored):
    _, likelihood, _ = scored
    n = likelihood.process.n_train_timesteps
    t = likelihood.timesteps((torch.arange(n - 1, dtype=torch.float64) + 0.5) / (n - 1))
    assert torch.equal(t, torch.arange(1, n))
    assert int(likelihood.timesteps(torch.zeros(1))) == 1


# -- the reward of consistency -------------------------------------------------------------------------------


def test_the_reward_is_the_detector_on_the_estimate(scored):
    loaded, likelihood, examples = scored
    detector = find(DETECTOR)
    rewarding = replace(likelihood, consistency=Consistency.of(loaded, detector, last_timestep=200))
    items = items_at(rewarding, examples)
    plan = rewarding.plan(items)
    t_N = torch.tensor([100, 100, 200, 200, 201, 201, 900, 900, 3, 3, 50, 50])
    object.__setattr__(plan, "t_N", t_N)
    loaded.model.zero_grad()
    scores = rewarding.score(loaded.model, plan, extras={"consistency", "seen"})
    assert scores.seen_N.tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0]
    predicted = rewarding.predict(loaded.model, plan)
    x0 = rewarding.process.x0(predicted.output_NCHW.float(), predicted.x_NCHW.float(), t_N)
    for n in scores.seen_N.nonzero()[:, 0].tolist():
        image = loaded.vae.decode(x0[n : n + 1] / loaded.vae.config.scaling_factor).sample / 2 + 0.5
        label = detector.read(plan.conditions["control"][n : n + 1])
        expected = detector.loss(image.clamp(0, 1), label)
        assert float(scores.consistency_N[n].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    scores.consistency_N.sum().backward()
    gradients = [p.grad.abs().sum() for p in loaded.model.controlnet.parameters() if p.grad is not None]
    assert sum(float(g) for g in gradients) > 0
    assert all(p.grad is None for p in loaded.vae.parameters())


def train(method: str, model: Path, data: Path, folder: Path, **options: Any) -> prefopt.TrainResult:
    given = {
        **QUIET,
        "learning_rate": 1e-4,
        "max_steps": 4,
        "warmup_steps": 0,
        "lr_scheduler_type": "constant",
    }
    return prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**given, **options})


def test_consistency_falls_where_it_is_rewarded(model, own_cache, tmp_path):
    data = edge_rows(tmp_path)
    options = {
        "detector": DETECTOR,
        "consistency_timestep": 999,
        "consistency_weight": 100.0,
        "learning_rate": 5e-3,
    }
    result = train(
        "controlnet_pp",
        model,
        data,
        tmp_path / "run",
        per_device_train_batch_size=6,
        max_steps=15,
        noise_epochs=1,
        **options,
    )
    loss = column(result, "consistency/loss")
    assert loss[-1] < 0.95 * loss[0]


def test_evaluations_take_the_mean_over_the_winners_that_they_look_at_themselves(
    model, own_cache, tmp_path, monkeypatch
):
    """Not by the share of the last batch that was trained on, which may be none."""
    looked: list[Any] = []
    score = ControlLikelihood.score

    def spied(self: ControlLikelihood, model: Any, plan: Any, extras: Any = ()) -> Any:
        found = score(self, model, plan, extras)
        if "consistency" in extras and not torch.is_grad_enabled():
            looked.append((found.logp_N, found.consistency_N, found.seen_N))
        return found

    monkeypatch.setattr(ControlLikelihood, "score", spied)
    options = {"detector": DETECTOR, "consistency_timestep": 600, "eval_size": 4, "max_steps": 1}
    given = {"per_device_eval_batch_size": 1, "per_device_train_batch_size": 2, "seed": 3}
    result = train("controlnet_pp", model, edge_rows(tmp_path), tmp_path / "run", **options, **given)
    logp_N, told_N, seen_N = (torch.cat(values) for values in zip(*looked[-4:], strict=True))
    assert 0 < seen_N.sum() < 4
    mean = float((seen_N * told_N).sum() / seen_N.sum())
    assert result.metrics["eval_consistency/loss"] == pytest.approx(mean, rel=1e-5)
    assert result.metrics["eval_loss"] == pytest.approx(float(-logp_N.mean()) + 0.5 * mean, rel=1e-5)


def test_consistency_is_not_logged_where_nobody_looked(model, own_cache, tmp_path):
    options = {"detector": DETECTOR, "consistency_timestep": 0, "max_steps": 1}
    result = train("controlnet_pp", model, edge_rows(tmp_path), tmp_path / "run", **options)
    assert "loss" in result.metrics
    assert "consistency/loss" not in result.metrics


def test_condition_po_takes_every_term_at_once(model, own_cache, tmp_path):
    rows = condition_rows(tmp_path)
    options = {
        "detector": DETECTOR, "consistency_weight": 0.5, "consistency_timestep": 999, "condition_dropout": 0.5,
        "prompt_dropout": 0.5, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    result = train("condition_po", model, rows, tmp_path / "run", **options)
    assert len(result.history) > 1


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("controlnet_pp", {}, "no detector is given, and controlnet_pp rewards what one sees"),
        ("controlnet_pp", {"detector": "canny"}, "has no loss, as no gradient passes through it"),
        (
            "condition_po",
            {"losing_condition": "online"},
            "no detector is given, and losing_condition=online makes",
        ),
        (
            "condition_po",
            {"losing_condition": "online", "detector": DETECTOR, "reference": "cached"},
            "is of no use to",
        ),
        (
            "diffusion_kto",
            {"losing_condition": "online", "detector": DETECTOR},
            "losing_condition=online makes losing conditions, and diffusion_kto compares none",
        ),
        (
            "sft",
            {"losing_condition": "online", "detector": DETECTOR},
            "losing_condition=online makes losing conditions, and sft compares none",
        ),
        (
            "condition_po",
            {"condition_dropout": 0.1, "diffusion_draw": "pair"},
            "condition_dropout=0.1 drops conditions of the diffusion term's own draws, and this run has none",
        ),
        (
            "dpo",
            {"condition_dropout": 0.1},
            "condition_dropout: for condition_po, and dpo has no draws of its own",
        ),
    ],
)
def test_what_a_term_needs_is_said_before_the_model_is_loaded(
    method, options, told, model, own_cache, tmp_path
):
    with pytest.raises((ConfigError, ValueError), match=told):
        train(method, model, control_rows(tmp_path), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_condition_that_the_detector_cannot_read_is_named_before_training(model, own_cache, tmp_path):
    data = edge_rows(tmp_path)
    Image.new("RGB", (32, 32), (200, 30, 90)).save(tmp_path / "3-condition.png")
    with pytest.raises(ValueError, match="the condition of row-4 cannot be read by canny_torch"):
        train("controlnet_pp", model, data, tmp_path / "run", detector=DETECTOR)
    assert not (tmp_path / "run" / "checkpoints").exists()


# -- losing conditions of the present model ------------------------------------------------------------------


@pytest.fixture
def online() -> dict[str, Any]:
    return {"losing_condition": "online", "detector": DETECTOR, "num_inference_steps": 2, "form": "sigmoid"}


def test_losing_conditions_are_made_for_every_step(model, online, own_cache, tmp_path, monkeypatch):
    from prefopt.modalities.control.online import Author

    asked: list[tuple[int, list[str]]] = []
    made = Author._made

    def spied(self: Author, examples: Any, epoch: int) -> Any:
        found = made(self, examples, epoch)
        asked.append((epoch, [e.id for e in examples]))
        true = self.store.controls([e.items[0].control for e in examples])
        drawn = torch.stack([torch.from_numpy(levels) for levels in found.values()]).float() / 255
        assert set(drawn.unique().tolist()) <= {0.0, 1.0}  # edges, as the detector draws them
        assert not torch.equal(drawn, true)
        return found

    monkeypatch.setattr(Author, "_made", spied)
    data = edge_rows(tmp_path)
    result = train(
        "condition_po", model, data, tmp_path / "run", per_device_train_batch_size=2, eval_size=2, **online
    )
    assert [epoch for epoch, _ in asked] == [-1, 0, 0, 1, 1]
    assert len({name for _, names in asked[1:3] for name in names}) == 4
    assert "eval_condition_po/delta" in result.metrics
    assert column(result, "condition_po/delta")[0] != 0


def test_rows_of_two_conditions_lose_theirs_to_the_made_ones(model, online, own_cache, tmp_path):
    rows = edge_rows(tmp_path)
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    for n, row in enumerate(told):
        row["chosen_condition"] = row.pop("condition")
        row["rejected_condition"] = f"{(n + 1) % len(told)}-image.png"  # which no detector could read
    rows.write_text("".join(json.dumps(row) + "\n" for row in told))
    result = train("condition_po", model, rows, tmp_path / "run", max_steps=1, **online)
    assert record(result.output_dir, "manifest")["data"]["examples"] == 6


@pytest.mark.slow
def test_made_conditions_are_detected_in_full_precision(model, online, own_cache, tmp_path, monkeypatch):
    detect, found = TorchCanny.detect, []

    def spied(self: TorchCanny, images: torch.Tensor) -> torch.Tensor:
        found.append(torch.is_autocast_enabled("cpu"))
        return detect(self, images)

    monkeypatch.setattr(TorchCanny, "detect", spied)
    train("condition_po", model, edge_rows(tmp_path), tmp_path / "run", max_steps=1, bf16=True, **online)
    assert found
    assert not any(found)


@pytest.mark.slow
def test_a_run_with_online_conditions_resumes_to_the_same_weights(model, online, own_cache, tmp_path):
    given = {**online, "save_strategy": None, "save_steps": 2, "save_total_limit": 3}
    data = edge_rows(tmp_path)
    whole = train("condition_po", model, data, tmp_path / "whole", **given)
    resumed = tmp_path / "resumed"
    shutil.copytree(whole.output_dir, resumed)
    shutil.rmtree(resumed / "model")
    shutil.rmtree(resumed / "checkpoints" / "step-00000004")
    again = train("condition_po", model, data, resumed, resume=True, **given)
    name = Path("controlnet") / "diffusion_pytorch_model.safetensors"
    first, second = load_file(whole.model_dir / name), load_file(again.model_dir / name)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_image_pairs_have_no_losing_condition(model, online, own_cache, tmp_path):
    from modalities.battery import picture_rows

    rows = picture_rows(tmp_path, ("chosen_image", "rejected_image", "condition"))
    with pytest.raises(
        ValueError, match="compares images under one condition, and losing_condition=online makes"
    ):
        train("condition_po", model, rows, tmp_path / "run", **online)


# -- samples -------------------------------------------------------------------------------------------------


def test_samples_are_shown_with_their_conditions_and_what_the_detector_reads(model, own_cache, tmp_path):
    data = edge_rows(tmp_path)
    options = {"detector": DETECTOR, "sample_prompts": 3, "num_inference_steps": 2, "max_steps": 1}
    result = train("sft", model, data, tmp_path / "run", **options)
    for entry in record(result.output_dir, "samples")["prompts"]:
        for drawn in entry["generations"]:
            assert all((result.output_dir / drawn[name]).is_file() for name in ("image", "given", "read"))
            assert 0 <= drawn["score"] <= 1
    assert 0 <= result.metrics["train_rows_fidelity_edge_f1"] <= 1
    assert result.metrics["train_rows_reward"] == pytest.approx(result.metrics["train_rows_sample_agreement"])
