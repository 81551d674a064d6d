"""Where keys apply: for each need that a key can have, which runs take it, and what the others say."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from prefopt.config import (
    FIELD_NAMES,
    ConfigError,
    TrainConfig,
    applying,
    check_keys,
    needs_of,
    resolve,
    staged_keys,
)


@dataclass(frozen=True)
class Kind:
    """A kind of model."""

    noun: str
    traits: frozenset[str]


TEXT = Kind("text", frozenset({"text", "answers", "adapters"}))
PLAIN = Kind("vector", frozenset({"vectors"}))
IMAGE = Kind("image", frozenset({"image", "denoising", "adapters"}))
CONTROL = Kind("control", frozenset({"image", "denoising", "adapters", "control"}))
VISION = Kind("vision-language", frozenset({"text", "adapters", "vision"}))
MOTION = Kind("motion", frozenset({"motion", "denoising", "adapters", "candidates"}))
RUNS: dict[str, tuple[str, Kind, str]] = {
    "text": ("dpo", TEXT, "all"),
    "sum": ("dpo+0.2*sft", TEXT, "all"),
    "vectors": ("dpo", PLAIN, "all"),
    "images": ("diffusion_dpo", IMAGE, "all"),
    "sum of images": ("dpo+0.5*mapo", IMAGE, "all"),
    "steps": ("lpo", IMAGE, "all"),
    "guided": ("gradspo", IMAGE, "all"),
    "trajectories": ("d3po", IMAGE, "all"),
    "reward model": ("lrm", IMAGE, "all"),
    "conditions": ("condition_po", CONTROL, "all"),
    "control images": ("dpo", CONTROL, "all"),
    "sum of conditions": ("dpo+0.5*controlnet_pp", CONTROL, "all"),
    "pictures": ("dpo", VISION, "all"),
    "contrasts": ("symmpo", VISION, "all"),
    "twice": ("longvpo", VISION, "all"),
    "twice's loss": ("longvpo", VISION, "gradient"),
    "motions": ("dpo", MOTION, "all"),
    "semi-online": ("sopo", MOTION, "all"),
    "ssapo": ("ssapo", TEXT, "all"),
    "spa": ("spa", TEXT, "all"),
    "judged": ("online_dpo", TEXT, "all"),
    "mixture": ("nash_md", TEXT, "all"),
    "ssapo's loss": ("ssapo", TEXT, "gradient"),
    "judged's loss": ("online_dpo", TEXT, "gradient"),
    "compo": ("compo", TEXT, "all"),
    "compo's loss": ("compo", TEXT, "gradient"),
    "compo's oracle": ("compo", TEXT, "oracle"),
}
VISIONS = {name for name, (_, kind, _) in RUNS.items() if kind is VISION}
TEXTS = {name for name, (_, kind, _) in RUNS.items() if kind is TEXT} | VISIONS
CONTROLS = {name for name, (_, kind, _) in RUNS.items() if kind is CONTROL}
IMAGES = {name for name, (_, kind, _) in RUNS.items() if kind is IMAGE} | CONTROLS
MOTIONS = {name for name, (_, kind, _) in RUNS.items() if kind is MOTION}
ONLINE = {"steps", "guided", "trajectories"}
OFFLINE = {"images", "sum of images"} | CONTROLS | MOTIONS
STAGED = {
    "twice",
    "twice's loss",
    "ssapo",
    "spa",
    "judged",
    "mixture",
    "ssapo's loss",
    "judged's loss",
    "compo",
    "compo's loss",
    "compo's oracle",
}
ROUNDS = {"ssapo", "spa", "judged", "mixture"}

# key and a value that is not its default; the runs that take it; what some of the others say
TABLE: dict[str, tuple[object, set[str], dict[str, str]]] = {
    "seed": (7, set(RUNS), {}),
    "lora_r": (4, TEXTS | IMAGES | MOTIONS, {"vectors": "for models that take adapters, and m is a vector model"}),
    "max_length": (64, TEXTS, {"images": "for text models, and m is an image model", "reward model": "for text models"}),
    "resolution": (64, set(IMAGES), {"text": "for image models, and m is a text model", "compo": "for image models"}),
    "guidance_scale": (2.0, IMAGES | MOTIONS, {"text": "for diffusion models, and m is a text model"}),
    "error_weight": (
        "snr",
        OFFLINE,
        {
            "text": "for diffusion models",
            "steps": "for denoising errors, which lpo does not train on",
            "reward model": "for denoising errors, which lrm does not",
        },
    ),
    "noise_epochs": (2, OFFLINE | {"reward model"}, {"trajectories": "for denoising errors .* d3po scores reverse"}),
    "feature_scale": (
        2.0,
        {"reward model"},
        {"text": "for image models", "steps": r"for training reward models \(lrm\), which lpo does not"},
    ),
    "prompts_per_step": (4, ONLINE, {"semi-online": "for methods that sample while training, which sopo does not"}),
    "reward": (
        "r",
        IMAGES | MOTIONS | TEXTS - VISIONS,
        {"pictures": "for image, motion and text models, and m is a vision-language model"},
    ),
    "missing_eos_penalty": (
        1.0,
        {"judged", "mixture"},
        {"ssapo": "for rounds whose answers a judge scores .*, which ssapo has none of"},
    ),
    "mixture_coef": (0.25, {"mixture"}, {"judged": "for nash_md's opponent, and online_dpo has none"}),
    "tau_quantile": (0.3, {"semi-online"}, {"motions": r"for semi-online pairs \(sopo\), which dpo does not make"}),
    "candidates": (
        9,
        ONLINE | {"semi-online"},
        {
            "text": "for diffusion models",
            "ssapo": "for diffusion models",
            "images": "for methods that sample while training, which diffusion_dpo does not",
            "sum of images": r"for methods that sample while training, which dpo\+0.5\*mapo does not",
            "reward model": "for methods that sample while training, which lrm does not",
        },
    ),
    "threshold": (0.9, {"steps", "guided"}, {"trajectories": "for comparing steps, and d3po compares whole traj"}),
    "grad_scale": (0.1, {"guided"}, {"steps": r"for guided targets \(gradspo\), which lpo has none of"}),
    "judge": (
        "j",
        ONLINE | {"judged", "mixture", "semi-online"},
        {
            "text": "for methods that ask a judge .*, which dpo does not",
            "ssapo": "for methods that ask a judge .*, which ssapo does not",
            "images": "for methods that ask a judge",
            "judged's loss": "for methods that ask a judge .*, and stage=gradient is a single run with the loss of onl",
        },
    ),
    "detector": ("canny", CONTROLS, {"images": "for control models, and m is an image model", "text": "for control models"}),
    "losing_condition": ("online", CONTROLS, {"images": "for control models", "steps": "for control models"}),
    "condition_dropout": (
        0.1,
        {"conditions"},
        {"control images": "for condition_po, and dpo has no draws of its own", "images": "for control models"},
    ),
    "consistency_timestep": (
        9, {"conditions", "sum of conditions"}, {"control images": "for the reward of consistency .*, which dpo has none of"}
    ),
    "freeze": (["projector"], VISIONS, {"text": "for vision-language models, and m is a text model"}),
    "contrast_image": (
        "crop",
        {"contrasts"},
        {"pictures": "for objectives that contrast images .*, which dpo does not", "text": "for vision-language models"},
    ),
    "video_frames": (4, VISIONS, {"text": "for vision-language models, and m is a text model"}),
    "stage2_data": (
        "rows.jsonl",
        {"twice"},
        {
            "text": "for methods of several runs, and dpo is one run",
            "compo": "for methods that train on one data set and then on another .*, which compo does not do",
            "twice's loss": "for methods that train .*, and stage=gradient is a single run with the loss of longvpo",
        },
    ),
    "stage": (None, STAGED, {"text": "for methods of several runs, and dpo is one run", "steps": "for .* and lpo is one run"}),
    "rounds": (
        1,
        ROUNDS,
        {
            "text": "for methods of several runs, and dpo is one run",
            "compo": "for rounds, which compo has none of",
            "ssapo's loss": "for rounds, and stage=gradient is a single run with the loss of ssapo",
            "images": "for methods of several runs, and diffusion_dpo is one run",
        },
    ),
    "epsilon": (0.5, {"ssapo"}, {"spa": "for ssapo's adversary, and spa has none", "ssapo's loss": "for rounds, and stage"}),
    "doubted_share": (0.5, {"spa"}, {"ssapo": "for spa, and ssapo smooths no labels"}),
    "perturbations": (
        3,
        {"compo", "compo's oracle"},
        {
            "ssapo": "for comparison oracles, which ssapo does not use",
            "sum": "for methods of several runs",
            "compo's loss": "for comparison oracles, and stage=gradient is a single run with the loss of compo",
        },
    ),
    "split_rule": (
        "release",
        {"compo"},
        {
            "compo's oracle": "for the stage before the oracle, and stage=oracle is the second one alone",
            "spa": "for comparison oracles",
        },
    ),
    "noisy_pairs": (5, {"compo", "compo's oracle"}, {"compo's loss": "for comparison oracles", "text": "for .* dpo is one run"}),
}  # fmt: skip


def config_of(run: str, **keys: object) -> tuple[TrainConfig, Kind]:
    method, kind, stage = RUNS[run]
    values = {
        "method": method,
        "model": "m",
        "data": "d",
        **({} if stage == "all" else {"stage": stage}),
        **keys,
    }
    return TrainConfig(**values), kind


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("key", TABLE)
def test_a_key_is_taken_or_refused_with_a_reason(key, run):
    value, taken_by, reasons = TABLE[key]
    given = {} if key == "stage" and run in STAGED else {key: value or "gradient"}
    config, kind = config_of(run, **given)
    method, _, stage = RUNS[run]
    assert (key in applying(method, kind.traits, stage)) == (run in taken_by)
    if run in taken_by:
        check_keys(config, kind)
        return
    with pytest.raises(ConfigError, match=rf"^{key}: {reasons.get(run, 'for ')}.*\. Leave it out") as error:
        check_keys(config, kind)
    assert "\n" not in str(error.value)


def test_the_table_has_a_row_for_every_need():
    needs = {needs_of(key) for key in FIELD_NAMES}
    assert {needs_of(key) for key in TABLE} == needs
    assert all({*taken_by, *reasons} <= set(RUNS) for _, taken_by, reasons in TABLE.values())


@pytest.mark.parametrize("run", RUNS)
def test_defaults_are_never_refused(run):
    config, kind = config_of(run)
    check_keys(config, kind)
    schema = TrainConfig.model_fields
    written = {
        key: field.default for key, field in schema.items() if not field.is_required() and key != "stage"
    }
    check_keys(*config_of(run, **written))


def test_a_stage_that_a_method_has_not():
    with pytest.raises(
        ConfigError,
        match=r"^stage: stage=oracle belongs to compo, and ssapo has no such stage\. Leave it out$",
    ):
        check_keys(*config_of("ssapo", stage="oracle"))


def test_keys_that_mean_something_to_some_method():
    """What a report shows, whatever the method."""
    assert FIELD_NAMES - applying(None, IMAGE.traits) >= {"max_length", "token_metrics"}
    assert applying(None, IMAGE.traits) >= {"rounds", "candidates", "resolution"}
    assert not applying(None, TEXT.traits) & {"resolution", "candidates", "error_weight"}
    assert applying(None, set()) == FIELD_NAMES - {k for k in FIELD_NAMES if needs_model(k)}


def needs_model(key: str) -> bool:
    return any(
        set(need.traits) & {"text", "image", "denoising", "adapters", "control", "vision"}
        for need in needs_of(key)
    )


def test_keys_of_several_runs():
    found = staged_keys()
    assert found >= {
        "stage",
        "rounds",
        "epsilon",
        "judge",
        "perturbations",
        "noisy_pairs",
        "first",
        "doubted_share",
    }
    assert not found & {"seed", "max_length", "resolution", "candidates", "feature_scale"}


def test_words_say_where_each_key_applies():
    for key in FIELD_NAMES:
        for need in needs_of(key):
            assert need.traits
            assert re.match(r"(and|which) ", need.lacks)
            need.lacks.format(method="dpo", model="m", noun="a text model")


@pytest.mark.parametrize(
    ("run", "key", "reason"),
    [
        ("text", "ld_alpha", None),
        ("text", "rpo_alpha", None),
        ("images", "use_weighting", "for likelihoods by token"),
        ("steps", "rpo_alpha", "for sums of losses, and lpo has scores of its own"),
        ("ssapo", "use_weighting", "ssapo reads .* of every row"),
    ],
)
def test_what_goes_with_a_loss_is_taken_or_refused_with_a_reason(run, key, reason):
    config, kind = config_of(run)
    if reason is None:
        check_keys(config, kind, given={key: 0.5})
        return
    with pytest.raises(ConfigError, match=rf"^{key}: {reason}.*\. Leave it out$"):
        check_keys(config, kind, given={key: 0.5})


def test_a_loss_refuses_what_it_has_no_place_for_beside_other_wrong_keys():
    place = {"model": "m", "data": "d"}
    with pytest.raises(ConfigError, match=r"^ld_alpha: kto takes single labelled samples.*Leave it out$"):
        resolve({"method": "kto", "ld_alpha": 0.5, **place})
    with pytest.raises(
        ConfigError, match=r"(?s)betta: unknown.*use_weighting: wpo has these weights already"
    ):
        resolve({"method": "wpo", "use_weighting": True, "betta": 0.5, **place})
    assert resolve({"method": "ipo", "ld_alpha": 0.5, "rpo_alpha": 1, **place})[1]["ld_alpha"] == 0.5
