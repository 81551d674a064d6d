"""Objectives by name."""

from __future__ import annotations

import pytest

from prefopt import objectives
from prefopt.objectives import BPO, DPO, BCOPair, Davidson, Mixture, RaoKupper, SimPO

TRL = {
    "sigmoid": "dpo",
    "hinge": "hinge",
    "ipo": "ipo",
    "exo_pair": "exo",
    "nca_pair": "nca",
    "robust": "robust",
    "bco_pair": "bco_pair",
    "sppo_hard": "sppo",
    "aot": "aot",
    "aot_unpaired": "aot_unpaired",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "discopop": "discopop",
    "sft": "sft",
    "kto": "kto",
    "apo_zero_unpaired": "apo_zero_unpaired",
    "alphapo": "alpha_po",
    "simpo": "simpo",
    "orpo": "orpo",
}


@pytest.mark.parametrize("name", TRL)
def test_names_of_trl(name: str) -> None:
    assert objectives.get(name) == objectives.get(TRL[name])
    assert objectives.canonical_name(name) == TRL[name]


def test_sigmoid_norm_fixes_the_margin() -> None:
    assert objectives.get("sigmoid_norm", beta=5.0) == DPO(beta=5.0, margin="average")
    with pytest.raises(TypeError, match="use dpo"):
        objectives.get("sigmoid_norm", margin="sum")


def test_dashes_and_case() -> None:
    assert objectives.get("DPO-RK") == RaoKupper()
    assert objectives.get("dpo-d") == Davidson()
    assert objectives.canonical_name("no-such") == "no_such"


def test_lambda_by_its_own_name() -> None:
    assert objectives.get("bpo", **{"lambda": 0.5}) == BPO(lambda_=0.5)
    with pytest.raises(TypeError, match="one of them"):
        objectives.get("bpo", lambda_=0.5, **{"lambda": 0.5})
    assert "lambda" in objectives.hyperparameter_names("dpop")


def test_cpo_is_ambiguous() -> None:
    with pytest.raises(KeyError, match=r"contrastive_po.*condition_po"):
        objectives.get("cpo")


@pytest.mark.parametrize(("name", "near"), [("simp", "simpo"), ("dpo_kr", "dpo_rk"), ("sigmod", "sigmoid")])
def test_unknown_names_get_the_nearest(name: str, near: str) -> None:
    with pytest.raises(KeyError, match=f"did you mean {near}"):
        objectives.get(name)


@pytest.mark.parametrize("name", objectives.names())
def test_unknown_hyperparameters_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="no hyper-parameter 'betta'"):
        objectives.get(name, betta=0.1)


def test_unknown_hyperparameters_get_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean label_smoothing"):
        objectives.get("dpo", label_smooting=0.1)
    with pytest.raises(TypeError, match=r"none of dpo, sft.*did you mean beta"):
        objectives.get("dpo+sft", betta=0.1)


@pytest.mark.parametrize("name", objectives.names())
def test_hyperparameters_are_listed_with_defaults_and_words(name: str) -> None:
    listed = objectives.hyperparameters(name)
    built = objectives.get(name)
    for field, (kind, default, doc) in listed.items():
        assert kind
        assert doc, f"{name}.{field} has no line in an Attributes section"
        assert getattr(built, field) == default
        assert "InitVar" not in kind


def test_sums_by_expression_and_by_list() -> None:
    summed = objectives.get("dpo+0.2*bco-pair+sft", beta=0.3)
    assert isinstance(summed, Mixture)
    assert [w for w, _ in summed.terms] == [1.0, 0.2, 1.0]
    assert summed.terms[1][1] == BCOPair(beta=0.3)
    assert summed == objectives.get(["dpo", "bco_pair", "sft"], weights=[1, 0.2, 1], beta=0.3)
    own = ["beta", "margin", "label_smoothing", "average"]
    assert list(objectives.hyperparameters("dpo+sft")) == own
    assert objectives.hyperparameter_names("dpo+sft") == [*own, "ld_alpha", "use_weighting"]


@pytest.mark.parametrize("name", ["dpo+", "+dpo", "dpo*0.2", "0.2*", "dpo++sft"])
def test_malformed_sums(name: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        objectives.get(name)


def test_weights_must_match() -> None:
    with pytest.raises(ValueError, match="2 objectives and 1 weights"):
        objectives.get(["dpo", "sft"], weights=[1.0])
    with pytest.raises(TypeError, match="inline"):
        objectives.get("dpo+sft", weights=[1.0, 1.0])
    with pytest.raises(ValueError, match="positive"):
        objectives.get(["dpo", "sft"], weights=[1.0, -1.0])


def test_simpo_target_by_either_name() -> None:
    assert SimPO(beta=2.5, gamma_beta_ratio=0.4).gamma == 1.0
    assert SimPO(beta=2.0).gamma == 1.0
    assert SimPO(beta=2.0).replace(gamma_beta_ratio=0.1).gamma == pytest.approx(0.2)
    with pytest.raises(ValueError, match="two ways"):
        SimPO(gamma=1.0, gamma_beta_ratio=0.5)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("dpo", {"label_smoothing": 0.5}),
        ("dpo", {"margin": "median"}),
        ("robust", {"label_smoothing": -0.1}),
        ("exo", {"label_smoothing": 0.0}),
        ("aot", {"label_smoothing": 0.7}),
        ("f_dpo", {"f": "jeffrey"}),
        ("f_dpo", {"f": "alpha", "alpha": 0.0}),
        ("f_po", {"f": "chi2"}),
        ("ld_dpo", {"a": 1.5}),
        ("r_dpo", {"alpha": -1.0}),
        ("discopop", {"tau": 2.0}),
        ("dpop", {"lambda_": -1.0}),
        ("simpo", {"gamma": -0.1}),
        ("slic", {"delta": -1.0}),
        ("orpo", {"lambda_": -1.0}),
        ("contrastive_po", {"alpha": -1.0}),
        ("contrastive_po", {"label_smoothing": 0.5}),
        ("alpha_po", {"label_smoothing": 0.6}),
        ("apo_zero_unpaired", {"undesirable_weight": 0.0}),
        ("kto", {"desirable_weight": 0.0}),
        ("beta_dpo", {"drop": 1.0}),
        ("beta_dpo", {"seed": 0.5}),
        ("ipo", {"length_normalize": 1}),
        ("sft", {"average": "batches"}),
    ],
)
def test_values_out_of_range(name: str, hyper: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(hyper)).rstrip("_")):
        objectives.get(name, **hyper)
