"""Accuracy and denoising errors by timestep: the record that image runs leave."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from modalities.image.image_runs import LORA, pair, picture, png, record, train
from prefopt.comparisons import LOSE, WIN, Comparison, Encoded, Outcome, collate
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import counted_noise
from prefopt.modalities.image import offline as image_offline
from prefopt.modalities.image.models.pipelines import load_pipeline
from prefopt.modalities.image.probe import (
    MOST_EXAMPLES,
    Errors,
    TimestepProbe,
    accuracy,
    decisive,
    ends,
    spread,
)
from prefopt.modalities.image.rows import load_image_comparisons
from prefopt.modalities.image.store import CachedImages

TIMESTEPS = [62, 187, 312, 437, 562, 687, 812, 937]
MOVED = {"max_steps": 6, "learning_rate": 1e-3}  # errors change by per cents


def errors_by_hand(source: Path, model: Path, data: Path) -> dict[str, torch.Tensor]:
    """Of every pair of a file, by plain diffusers: (T, E) for each side. Latents are those of the source."""
    loaded = load_pipeline(str(source), trainable=False)
    store = CachedImages(loaded, 32, "center")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    noising = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    sides: dict[str, list[list[torch.Tensor]]] = {"chosen": [], "rejected": []}
    for example in load_image_comparisons(data).examples:
        refs = [item.sample for item in example.items]
        store.add_images({ref.digest: ref for ref in refs})
        tokens = pipe.tokenizer(
            example.items[0].condition["prompt"], padding="max_length", return_tensors="pt"
        )
        _, noise_CHW = counted_noise(0, example.id, -1, store.shape)
        for slot, (side, ref) in enumerate(zip(sides, refs, strict=True)):
            mean_NCHW, std_NCHW = store.latents([ref.digest])
            _, z_CHW = counted_noise(0, f"posterior {slot} of {example.id}", -1, store.shape)
            x0_NCHW, noise_NCHW = mean_NCHW + std_NCHW * z_CHW, noise_CHW[None]
            found = []
            for t in TIMESTEPS:
                x_NCHW = noising.add_noise(x0_NCHW, noise_NCHW, torch.tensor([t]))
                with torch.no_grad():
                    output = pipe.unet(x_NCHW, t, pipe.text_encoder(tokens.input_ids)[0]).sample
                found.append((output - noise_NCHW).square().mean())
            sides[side].append(found)
    return {side: torch.tensor(found).T for side, found in sides.items()}


def errors_in(found: dict[str, Any], when: str) -> dict[str, torch.Tensor]:
    return {side: torch.tensor(found[when][side]) for side in ("chosen", "rejected")}


def check_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], **tolerance: float) -> None:
    for side in ("chosen", "rejected"):
        torch.testing.assert_close(a[side], b[side], **{"rtol": 2e-5, "atol": 0.0, **tolerance})


# ---- numbers


def test_numbers_are_those_of_plain_diffusers(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(5)])
    train("diffusion_dpo", sd, data, tmp_path / "run", **MOVED, per_device_eval_batch_size=2)
    found = record(tmp_path / "run", "timesteps")
    assert found["timesteps"] == TIMESTEPS
    start = errors_by_hand(sd, sd, data)
    end = errors_by_hand(sd, tmp_path / "run" / "model", data)
    check_same(errors_in(found, "reference"), start)
    check_same(errors_in(found, "before"), start)
    check_same(errors_in(found, "after"), end)
    assert float((end["chosen"] / start["chosen"] - 1).abs().min()) > 1e-4  # it moved, at every timestep
    gap = (start["chosen"] - end["chosen"]) - (start["rejected"] - end["rejected"])
    assert float(gap.abs().min()) > 1e-5  # nothing hangs on rounding
    assert found["before"]["accuracy"] == [0.5] * 8
    expected = (gap > 0).double().mean(1).tolist()
    assert found["after"]["accuracy"] == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_without_a_reference_the_smaller_error_wins(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(5)])
    train("mapo", sd, data, tmp_path / "run", **MOVED)
    found = record(tmp_path / "run", "timesteps")
    assert "reference" not in found
    for when in ("before", "after"):
        errors = errors_in(found, when)
        expected = (errors["chosen"] < errors["rejected"]).double().mean(1).tolist()
        assert found[when]["accuracy"] == pytest.approx(expected)
    assert 0 < sum(found["before"]["accuracy"]) < 8


def test_the_weight_of_timesteps_plays_no_part(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(2)])
    for weight in ("constant", "min_snr"):
        train("diffusion_dpo", sd, data, tmp_path / weight, max_steps=1, error_weight=weight)
    assert (
        record(tmp_path / "constant", "timesteps")["before"]
        == record(tmp_path / "min_snr", "timesteps")["before"]
    )


@pytest.mark.parametrize(
    "options", [{}, {"reference": "cached"}, LORA, {**LORA, "reference": "cached"}], ids=str
)
def test_every_kind_of_reference_is_measured_before_the_policy_moves(
    options, sd, images_file, own_cache, tmp_path, monkeypatch
):
    loads: list[str] = []

    def counted(source: str, **given: Any) -> Any:
        loads.append(source)
        return load_pipeline(source, **given)

    monkeypatch.setattr(image_offline, "load_pipeline", counted)
    data = images_file([pair(n) for n in range(3)])
    lr = 1e-2 if options.get("use_peft") else 1e-3
    train("diffusion_dpo", sd, data, tmp_path, max_steps=3, **{**options, "learning_rate": lr})
    assert len(loads) == (1 if options else 2)  # the policy; a live reference too
    found = record(tmp_path, "timesteps")
    check_same(errors_in(found, "reference"), errors_in(found, "before"), rtol=1e-6)
    moved = errors_in(found, "after")["chosen"] / errors_in(found, "reference")["chosen"] - 1
    assert float(moved.abs().max()) > 1e-3


def test_another_reference_is_measured_once(pipelines, sd, images_file, own_cache, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(sd, other)
    loaded = load_pipeline(str(sd))
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(1.05)
    loaded.model.save_pretrained(other / "unet")
    data = images_file([pair(n) for n in range(3)])
    given = {"reference": "cached", "reference_model": str(other), "max_steps": 2}
    train("diffusion_dpo", sd, data, tmp_path / "run", **given)
    found = record(tmp_path / "run", "timesteps")
    check_same(errors_in(found, "reference"), errors_by_hand(sd, other, data))
    check_same(errors_in(found, "before"), errors_by_hand(sd, sd, data))


# ---- which comparisons


def test_single_images_are_compared_each_with_each(sd, images_file, own_cache, tmp_path):
    rows = [{"prompt": "p", "image": png(picture(n)), "label": n % 3 == 0} for n in range(7)]
    data = images_file(rows)
    options = {"beta": 50.0, "noise_epochs": 1}
    train("diffusion_kto", sd, data, tmp_path / "run", **MOVED, **options)
    found = record(tmp_path / "run", "timesteps")
    assert not found["paired"]
    policy, reference = errors_in(found, "after"), errors_in(found, "reference")
    assert (policy["chosen"].shape, policy["rejected"].shape) == ((8, 3), (8, 4))
    gain = {side: reference[side] - policy[side] for side in policy}
    right = [
        sum(float(a > b) for a in gain["chosen"][k] for b in gain["rejected"][k]) / 12 for k in range(8)
    ]  # fmt: skip
    assert found["after"]["accuracy"] == pytest.approx(right)


def test_held_out_pairs_come_first(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(6)])
    train("diffusion_dpo", sd, data, tmp_path / "held", max_steps=1, eval_size=2)
    train("diffusion_dpo", sd, data, tmp_path / "all", max_steps=1)
    held, everything = (record(tmp_path / name, "timesteps") for name in ("held", "all"))
    assert (held["split"], len(held["after"]["chosen"][0])) == ("held-out", 2)
    assert (everything["split"], len(everything["after"]["chosen"][0])) == ("training", 6)
    assert set(held["before"]["chosen"][0]) < set(everything["before"]["chosen"][0])


def test_a_run_on_ties_alone_has_nothing_to_tell(sd, images_file, own_cache, tmp_path):
    data = images_file([{**pair(n), "label": "tie"} for n in range(2)])
    train("dpo_rk", sd, data, tmp_path / "run", max_steps=1, beta=500.0)
    assert (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "record" / "timesteps.json").exists()
    assert "By noise level" not in (tmp_path / "run" / "report.html").read_text("utf-8")


def encoded(name: str, *edges: Comparison) -> Encoded[EncodedLatent]:
    items = tuple(EncodedLatent(f"{name}-{k}", "p", (0, 0, 0, 0, 0, 0)) for k in range(3))
    return Encoded(name, items, edges)


def test_the_side_that_votes_favour_is_chosen() -> None:
    examples = [
        encoded("a", Comparison(0, 1, WIN), Comparison(0, 2, Outcome(0.4, 0.1, 0.5))),
        encoded("b", Comparison(0, 1, Outcome(0.3, 0.6, 0.1)), Comparison(1, 2, Outcome(0.5, 0.5, 0.0))),
        encoded("c", Comparison(2, 1, LOSE)),
    ]
    chosen, rejected = ends(collate(examples).edges)
    assert (chosen.tolist(), rejected.tolist()) == ([0, 4, 7], [1, 3, 8])
    assert [[decisive(edge) for edge in e.comparisons] for e in examples] == [
        [True, False],
        [True, False],
        [True],
    ]
    singles = [encoded("d", Comparison(0, None, WIN)), encoded("e", Comparison(1, None, LOSE))]
    chosen, rejected = ends(collate(singles).edges)
    assert (chosen.tolist(), rejected.tolist()) == ([0], [4])


def test_equal_gains_count_one_half() -> None:
    reference = Errors(torch.tensor([[0.3, 0.3, 0.3, 0.3]]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    rounded = 0.3 * (1 + torch.finfo(torch.float32).eps)
    policy = Errors(torch.tensor([[0.2, 0.3, rounded, 0.31]]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    assert accuracy(policy, reference, paired=True).tolist() == [0.5]  # right, equal, equal, wrong
    worse = Errors(policy.chosen_TE, torch.tensor([[0.6, 0.6, 0.6, 0.505]]))
    assert accuracy(worse, reference, paired=True).tolist() == [0.75]
    one_side = Errors(policy.chosen_TE, torch.zeros(1, 0))
    assert accuracy(one_side, None, paired=False).isnan().all()


def test_pairs_taken_apart_keep_both_sides() -> None:
    singles = [encoded(str(n), Comparison(0, None, WIN if n % 2 == 0 else LOSE)) for n in range(640)]
    kept = spread(singles)
    assert len({e.id for e in kept}) == MOST_EXAMPLES
    wins = sum(e.comparisons[0].outcome == WIN for e in kept)
    assert MOST_EXAMPLES / 4 < wins < 3 * MOST_EXAMPLES / 4
    assert [e.id for e in spread(singles)] == [e.id for e in kept]
    assert spread(singles[:5]) == singles[:5]


# ---- the course of a run


def test_a_resumed_run_keeps_what_was_measured_before(sd, images_file, own_cache, tmp_path):
    given = {"max_steps": 6, "save_steps": 3, "save_strategy": None, "eval_size": 2, "eval_steps": 2,
             "learning_rate": 1e-3}  # fmt: skip
    data = images_file([pair(n) for n in range(5)])
    train("diffusion_dpo", sd, data, tmp_path, **given)
    expected = record(tmp_path, "timesteps")
    assert set(expected) == {"split", "paired", "timesteps", "reference", "before", "after"}
    assert expected["before"]["chosen"] != expected["after"]["chosen"]
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000006")
    shutil.rmtree(tmp_path / "model")
    train("diffusion_dpo", sd, data, tmp_path, **given, resume=True)
    assert record(tmp_path, "timesteps") == expected


def test_a_run_begun_without_the_record_can_be_resumed(sd, images_file, own_cache, tmp_path):
    given = {"max_steps": 4, "save_steps": 2, "save_strategy": None, "learning_rate": 1e-3}
    data = images_file([pair(n) for n in range(3)])
    train("diffusion_dpo", sd, data, tmp_path, **given)
    expected = record(tmp_path, "timesteps")
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000004")
    (tmp_path / "record" / "timesteps.json").unlink()
    train("diffusion_dpo", sd, data, tmp_path, **given, resume=True)
    found = record(tmp_path, "timesteps")
    assert (found["reference"], found["after"]) == (expected["reference"], expected["after"])
    assert "Denoising error by timestep" in (tmp_path / "report.html").read_text("utf-8")


def test_training_is_not_disturbed(sd, images_file, own_cache, tmp_path, monkeypatch):
    data = images_file([pair(n) for n in range(3)])
    with_it = train("diffusion_dpo", sd, data, tmp_path / "with")
    monkeypatch.setattr(image_offline, "with_probe", lambda context, setup, likelihood: setup)
    without = train("diffusion_dpo", sd, data, tmp_path / "without")
    assert with_it.history == without.history


def test_the_model_is_measured_without_dropout_and_left_as_it_was(
    sd, images_file, own_cache, tmp_path, monkeypatch
):
    errors, seen = TimestepProbe.errors, []

    def watched(probe: TimestepProbe, model: Any) -> Errors:
        hook = model.register_forward_hook(lambda module, *_: seen.append(module.training))
        for mode in (False, True):
            model.train(mode)
            found = errors(probe, model)
            assert model.training is mode
        hook.remove()
        return found

    monkeypatch.setattr(TimestepProbe, "errors", watched)
    train("diffusion_dpo", sd, images_file([pair(0)]), tmp_path, max_steps=1)
    assert len(seen) == 3 * 2 * 8
    assert not any(seen)
