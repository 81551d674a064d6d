"""All wrong keys in one error, each with its reason and the nearest key that would do."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from config.test_where import IMAGE, TEXT
from prefopt.config import ConfigError, TrainConfig, resolve

NEEDED = {"method": "dpo", "model": "m", "data": "d"}

TAKEN = "average, beta, label_smoothing, ld_alpha, margin, rpo_alpha, use_weighting"


def kind_of(config: TrainConfig):
    return IMAGE if config.model == "pipe" else TEXT


def refused(**given: object) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(NEEDED, given, kind_of=kind_of)
    return str(error.value)


def test_one_unknown_key_is_one_sentence():
    said = f"unknown key 'betta'; did you mean 'beta'? (dpo takes {TAKEN}; `prefopt methods NAME` lists every key)"
    assert refused(betta=1) == said


def test_one_foreign_key_is_one_sentence():
    assert refused(resolution=64) == "resolution: for image models, and m is a text model. Leave it out"


def test_all_wrong_keys_at_once():
    assert refused(betta=1, resolution=64, learning_rte=2, rounds=1).splitlines() == [
        "4 keys mean nothing in this run. Leave them out, or correct them:",
        "  betta: unknown; did you mean 'beta'?",
        "  learning_rte: unknown; did you mean 'learning_rate'?",
        "  rounds: for methods of several runs, and dpo is one run",
        "  resolution: for image models, and m is a text model",
        f"dpo takes {TAKEN}; `prefopt methods NAME` lists every key",
    ]


def test_several_unknown_keys_without_a_kind_of_model():
    with pytest.raises(ConfigError) as error:
        resolve(NEEDED, {"betta": 1, "resolutoin": 64, "rounds": 1})
    assert str(error.value).splitlines()[1:3] == [
        "  betta: unknown; did you mean 'beta'?",
        "  resolutoin: unknown; did you mean 'resolution'?",
    ]
    assert "rounds" not in str(error.value), "that is for the run to say"


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ({"resolutoin": 64, "model": "pipe"}, "did you mean 'resolution'"),
        ({"resolutoin": 64}, None),  # means nothing to text
        ({"max_lenght": 64}, "did you mean 'max_length'"),
        ({"max_lenght": 64, "model": "pipe"}, None),
        ({"rouns": 1, "method": "ssapo"}, "did you mean 'rounds'"),
        ({"prompts_per_stp": 1, "method": "lpo", "model": "pipe"}, "did you mean 'prompts_per_step'"),
        ({"prompts_per_stp": 1, "method": "ssapo"}, "did you mean 'prompts_per_round'"),
        ({"lamda": 1}, None),  # another name of a hyper-parameter that dpo has not
        ({"lamda": 1, "method": "orpo"}, "did you mean 'lambda"),
        ({"gamma_beta_raito": 1, "method": "compo", "first": "simpo"}, "did you mean 'gamma_beta_ratio'"),
        # keys that exist, elsewhere
        ({"prompts_per_step": 3, "method": "ssapo"}, "did you mean 'prompts_per_round'"),
        ({"prompts_per_round": 3, "method": "lpo", "model": "pipe"}, "did you mean 'prompts_per_step'"),
        ({"response_temperature": 0.5}, "did you mean 'sample_temperature'"),
        (
            {"per_device_train_batch_tokens": 99, "model": "pipe"},
            "did you mean 'per_device_train_batch_size'",
        ),
        (
            {"noisy_pairs": 3, "model": "pipe"},
            None,
        ),  # noise_epochs is no likely meaning of a key spelt rightly
        ({"rounds": 2}, None),
    ],
)
def test_the_nearest_key_means_something_in_this_run(given, near):
    said = refused(**given)
    assert (near in said) if near else ("did you mean" not in said), said


def test_a_value_that_cannot_be_does_not_hide_a_misspelt_key():
    assert refused(betta=1, seed=-1).startswith("unknown key 'betta'")
    assert refused(seed=-1, resolution=64).startswith("seed: ")


def test_what_comes_of_a_method_s_defaults_is_its_own_affair():
    """`lpo` brings keys of sampling with it; on a text model the method is refused, not its keys."""

    def never(config: TrainConfig):
        raise ConfigError(f"{config.method} trains image models")

    with pytest.raises(ConfigError, match=r"^lpo trains image models$"):
        resolve(NEEDED, {"method": "lpo"}, kind_of=never)


def test_runs_that_no_door_has_checked_check_themselves(tmp_path):
    from prefopt import stages
    from prefopt.training.run import run

    place = {"model": "world:text", "data": "world:text", "output_dir": str(tmp_path / "run")}
    single = TrainConfig(method="dpo", candidates=8, perturbations=3, **place)
    staged = TrainConfig(method="ssapo", candidates=8, perturbations=3, **place)
    for act, config in ((run, single), (stages.train, single), (stages.train, staged)):
        with pytest.raises(
            ConfigError, match=r"(?s)^2 keys .*perturbations: for .*candidates: for diffusion models"
        ):
            act(config, {})
    assert not (tmp_path / "run").exists()


def by_command(given, folder):
    from prefopt.cli.train import command

    done = CliRunner().invoke(command, ["dpo", *(f"{key}={value}" for key, value in given.items())])
    assert done.exit_code == 1
    raise ConfigError(done.output)


def by_function(given, folder):
    import prefopt

    prefopt.train("dpo", **given)


def by_comparison(given, folder):
    from prefopt.sweeps import Entry, compare

    compare([Entry("dpo", {}, "dpo")], given, [], [0], folder, workers=1)


@pytest.mark.parametrize("door", [by_command, by_function, by_comparison])
def test_every_door_names_misspelt_and_foreign_keys_together(door, tmp_path, monkeypatch):
    monkeypatch.setattr("prefopt.stages.train", lambda *given, **more: pytest.fail("a run was begun"))
    monkeypatch.setattr("prefopt.sweeps.run_all", lambda *given: pytest.fail("a run was begun"))
    place = {"model": "world:text", "data": "world:text", "output_dir": str(tmp_path / "run")}
    said = r"(?s)2 keys .*betta: unknown; did you mean 'beta'.*resolution: for image models, and world:text is a text model"
    with pytest.raises(ConfigError, match=said):
        door({**place, "resolution": 64, "betta": 1}, tmp_path / "all")
