"""A base network called in halves gives what it gives when called plainly, and is called less.

Legend: N items, M states.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

import prefopt
import tiny_pipelines
from modalities.battery import control_rows
from modalities.image.image_runs import QUIET, record
from prefopt.likelihoods.process import Process
from prefopt.modalities.control.halves import obstacle
from prefopt.modalities.control.likelihood import ControlLikelihood, EncodedControl
from prefopt.modalities.control.models import denoise_controlled, load_control
from prefopt.modalities.control.network import ControlledNetwork, States, made_up
from prefopt.modalities.image.models.denoiser import add_lora
from prefopt.models.loading import LoraSettings
from prefopt.references import Reference

KINDS: dict[str, dict[str, Any]] = {
    "sd": {"cross_attention_dim": tiny_pipelines.WIDTH},
    "sdxl": tiny_pipelines.XL,
}


def network_of(kind: str, dtype: torch.dtype = torch.float64, **options: Any) -> ControlledNetwork:
    """Random, with the base frozen, tried."""
    torch.manual_seed(0)
    base = tiny_pipelines.unet(**KINDS[kind], **options)
    network = ControlledNetwork(base, tiny_pipelines.controlnet_of(base)).to(dtype).eval()
    for module in (base, network.controlnet):
        tiny_pipelines.widen(module)
    base.requires_grad_(False)
    assert network.adapt() is None
    return network


def arguments(network: ControlledNetwork, side: int = 8) -> dict[str, Any]:
    """Three items of two states."""
    dtype = next(network.parameters()).dtype
    found: dict[str, Any] = made_up(network.base.config, network.controlnet.config)
    found = {k: v if k == "timestep" else v.to(dtype) for k, v in found.items()}
    added = {name: found.pop(name) for name in ("text_embeds", "time_ids") if name in found}
    found["sample"] = found["sample"].repeat(1, 1, 4, 4)[:, :, :side, :side]
    found["control"] = found["control"].repeat(1, 1, 4, 4)[:, :, : 4 * side, : 4 * side]
    return {**found, "added_cond_kwargs": added or None}


def states(*state_N: int) -> States:
    return States(state_N or (0, 0, 1), torch.device("cpu"))


def grads(network: ControlledNetwork, output: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    output.square().mean().backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


@pytest.mark.parametrize("trained", ["weights", "adapters"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradients_are_those_of_a_plain_call(kind, checkpointing, trained):
    network = network_of(kind)
    if trained == "adapters":
        add_lora(kind, network.controlnet, LoraSettings(r=2, alpha=2, dropout=0.0))
        for name, parameter in network.named_parameters():
            if parameter.requires_grad and "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        network.to(torch.float64)
    if checkpointing:
        network.enable_gradient_checkpointing()
    network.train()
    given = arguments(network)
    plain, halves = network(**given), network(**given, states=states())
    torch.testing.assert_close(halves, plain, rtol=1e-10, atol=1e-12)
    expected, found = grads(network, plain), grads(network, halves)
    assert expected.keys() == found.keys()
    assert all(name.startswith("controlnet.") for name in found)
    for name, value in expected.items():
        assert value.any()
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-14, msg=name)


@torch.no_grad()
def test_a_row_alone_gives_what_it_gives_in_company():
    network = network_of("sdxl")
    given = arguments(network)
    together = network(**given, states=states())
    for n in range(3):
        added = {k: v[n : n + 1] for k, v in given["added_cond_kwargs"].items()}
        one = {k: v[n : n + 1] for k, v in given.items() if k != "added_cond_kwargs"}
        alone = network(**one, added_cond_kwargs=added, states=states(0))
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("side", [8, 9])
@torch.no_grad()
def test_sides_that_halving_does_not_divide(side):
    network = network_of("sd")
    given = arguments(network, side)
    torch.testing.assert_close(network(**given, states=states()), network(**given), rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_free_lunch_and_other_attention_are_in_the_blocks():
    network = network_of("sd", torch.float32)
    given = arguments(network)
    before = network(**given)
    network.base.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    network.base.set_attn_processor(AttnProcessor())
    plain = network(**given)
    assert not torch.allclose(plain, before, rtol=1e-3)
    torch.testing.assert_close(network(**given, states=states()), plain, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_under_autocast_and_then_not():
    network, kept = network_of("sd", torch.float32), states()
    given = arguments(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, halves = network(**given), network(**given, states=kept)
    torch.testing.assert_close(halves, plain, rtol=0.05, atol=0.05)
    # features in bfloat16 are not taken for others
    torch.testing.assert_close(network(**given, states=kept), network(**given), rtol=1e-4, atol=1e-5)


def hooked(network: ControlledNetwork) -> list[int]:
    """Rows of every call of the base's down path, from now on."""
    rows: list[int] = []
    network.base.conv_in.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    return rows


def hooks(network: ControlledNetwork) -> None:
    network.base.register_forward_hook(lambda *_: None)


def labels(network: ControlledNetwork) -> None:
    network.base.class_embedding = torch.nn.Embedding(2, 64).requires_grad_(False)


def projection(network: ControlledNetwork) -> None:
    network.base.encoder_hid_proj = torch.nn.Linear(32, 32).requires_grad_(False)


def embeddings(network: ControlledNetwork) -> None:
    network.base.register_to_config(addition_embed_type="image")


def centered(network: ControlledNetwork) -> None:
    network.base.register_to_config(center_input_sample=True)


def thawed(network: ControlledNetwork) -> None:
    network.base.conv_out.bias.requires_grad_(True)


def another(network: ControlledNetwork) -> None:
    network.base.__class__ = type("Wrapped", (type(network.base),), {})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (hooks, "hooked"),
        (labels, "class labels"),
        (projection, "IP-Adapter"),
        (embeddings, "addition_embed_type is image"),
        (centered, "centers"),
        (thawed, "not frozen"),
        (another, "it is a Wrapped"),
    ],
)
def test_what_halves_would_leave_out_makes_calls_plain(change, told):
    network = network_of("sd")
    change(network)
    assert told in str(obstacle(network.base))
    assert told in str(network.adapt())
    assert network.account.endswith(str(network.plain_because))


def test_what_comes_after_the_trial_makes_calls_plain():
    network = network_of("sd")
    given, rows = arguments(network), hooked(network)
    thawed(network)
    output = network(**given, states=states())
    assert rows == [3]
    assert "base.conv_out.bias" in grads(network, output)


def test_a_trial_that_differs_or_fails_is_told(monkeypatch):
    network = network_of("sd")
    own = network.base.conv_act
    network.base.conv_act = torch.nn.Identity()

    def forward(self: Any, *args: Any, **options: Any) -> Any:
        self.conv_act = own
        try:
            return forward_of(self, *args, **options)
        finally:
            self.conv_act = torch.nn.Identity()

    forward_of = type(network.base).forward
    monkeypatch.setattr(type(network.base), "forward", forward)
    assert "another output, off by" in str(network.adapt())
    monkeypatch.setattr(type(network.base), "get_time_embed", None)
    network.train()
    assert "the trial fails (TypeError" in str(network.adapt())
    assert network.training


class Keys:
    """A store of made-up latents, prompts and control images."""

    shape = (4, 8, 8)
    identity: ClassVar[dict[str, Any]] = {}

    def latents(self, keys):
        return self._of(keys, 4, 8, 8), 0.1 * torch.ones(len(keys), 4, 8, 8)

    def conditions(self, prompts, sizes=None):
        return {"prompt_embeds": self._of(prompts, 7, tiny_pipelines.WIDTH)}

    def controls(self, keys):
        return self._of(keys, 3, 32, 32).sigmoid()

    def _of(self, keys, *shape):
        made = [torch.Generator().manual_seed(sum(key.encode())) for key in keys]
        return torch.stack([torch.randn(*shape, generator=g) for g in made])


def likelihood(network: ControlledNetwork, **options: Any) -> ControlLikelihood:
    scheduler = tiny_pipelines.scheduler_of("ddim", "epsilon")
    return ControlLikelihood(
        process=Process.from_scheduler(scheduler),
        network=partial(denoise_controlled, "sd"),
        store=Keys(),
        **options,
    )


def item(image: str, control: str, **other: Any) -> EncodedControl:
    given = {"prompt": "a cat", "sizes": (32, 32, 0, 0, 32, 32), "example": "row", "slot": 0, "epoch": 3}
    return EncodedControl(image, control=control, **{**given, **other})


def test_items_share_a_state_if_all_but_the_condition_is_alike():
    one = item("a", "true")
    items = [one, item("a", "wrong"), item("b", "true", slot=1), item("a", "wrong", epoch=4),
             item("a", "wrong", example="other"), item("a", "true", prompt="a dog"),
             item("a", "true", sizes=(64, 64, 0, 0, 32, 32)), one, item("c", "true")]  # fmt: skip
    plan = likelihood(network_of("sd")).plan(items)
    assert plan.state_N == (0, 0, 1, 2, 3, 4, 5, 0, 6)
    assert plan.states.first_M.tolist() == [0, 2, 3, 4, 5, 6, 8]
    for name in ("x0_NCHW", "noise_NCHW"):
        rows = getattr(plan, name)
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(rows[0], rows[7])
    dropped = likelihood(network_of("sd"), prompt_dropout=1.0).plan(items)
    assert dropped.state_N == (0, 0, 1, 2, 3, 0, 4, 0, 5)


@torch.no_grad()
def test_features_belong_to_their_timestep_and_base_network():
    network = network_of("sd", torch.float32)
    other = ControlledNetwork(network_of("sd", torch.float32).base, network.controlnet)
    for parameter in other.base.parameters():
        parameter.mul_(0.9)
    scored = likelihood(network)
    plan = scored.plan([item("a", "true"), item("a", "wrong")])
    rows, others = hooked(network), hooked(other)
    assert other.adapt() is None
    others.clear()
    plans = (plan, plan.at(5), plan.at(900), plan.to(torch.device("cpu")))
    for model, calls in ((network, rows), (other, others)):
        for chosen in plans:
            calls.clear()
            found = [scored.score(model, chosen).logp_N for _ in range(2)]
            # features at another timestep, or of the other network, are there and not used
            assert calls == [1]
            why, model.plain_because = model.plain_because, "asked for"
            torch.testing.assert_close(found[0], scored.score(model, chosen).logp_N, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
            model.plain_because = why


class Policy:
    def __init__(self, model: ControlledNetwork) -> None:
        self.model, self.adapter = model, None


def test_a_step_with_a_live_reference_reads_each_state_once():
    network = network_of("sd", torch.float32)
    frozen = ControlledNetwork(network.base, tiny_pipelines.controlnet_of(network.base))
    frozen.plain_because = network.plain_because
    frozen.requires_grad_(False)
    scored = likelihood(network)
    reference = Reference(
        "live", policy=Policy(network), likelihood=scored, load=lambda: frozen, same_as_policy=True,
        device=torch.device("cpu"),
    )  # fmt: skip
    items = [
        item("a", "true"),
        item("a", "wrong"),
        item("b", "true", example="b"),
        item("b", "wrong", example="b"),
    ]
    rows = hooked(network)
    plan = scored.plan(items)
    scores = scored.score(network, plan)
    anchors = reference.scores(items, plan)
    assert rows == [2]
    scores.logp_N.sum().backward()
    assert all(p.grad is not None for p in network.controlnet.parameters())
    network.plain_because = frozen.plain_because = "asked for"
    torch.testing.assert_close(scored.score(network, plan).logp_NL, scores.logp_NL, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reference.scores(items, plan), anchors, rtol=1e-5, atol=1e-6)
    assert rows == [2, 4, 4]


def test_items_of_an_image_are_scored_together():
    scored = likelihood(network_of("sd"))
    one, other = item("a", "true"), item("a", "wrong")
    assert scored.family(one) == scored.family(other) != scored.family(replace(one, epoch=4))


def test_sharded_parameters_are_called_plainly(monkeypatch):
    import prefopt.modalities.control.models as models

    network = network_of("sd", torch.float32)
    rows, scored = hooked(network), likelihood(network)
    plan = scored.plan([item("a", "true"), item("a", "wrong")])
    monkeypatch.setattr(models, "DTensor", torch.nn.Parameter)
    scored.score(network, plan)
    assert rows == [2]


@pytest.mark.slow
def test_a_run_on_sdxl_shares_states(own_cache, tmp_path):
    model = tiny_pipelines.tiny_control_xl(tmp_path / "xl")
    result = prefopt.train(
        "condition_po", model=model, data=control_rows(tmp_path), output_dir=str(tmp_path / "run"),
        **{**QUIET, "max_steps": 1},
    )  # fmt: skip
    (found,) = [c for c in record(result.output_dir, "manifest")["checks"] if c["name"] == "shared states"]
    assert found["status"] == "pass"
    assert "reads a noised image once" in found["detail"]


def test_a_reference_that_shares_the_base_shares_what_was_found_of_it(tmp_path):
    folder = tiny_pipelines.tiny_control(tmp_path / "sd")
    policy, reference = load_control(str(folder)), load_control(str(folder), trainable=False)
    assert reference.denoiser.plain_because == "it was not tried"
    policy.denoiser.adapt()
    reference.share_base(policy)
    assert reference.denoiser.plain_because is None
