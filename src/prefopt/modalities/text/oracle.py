"""Comparison oracles on language models: weights move by a vote of random moves, without a backward pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.capability import causal_lm
from prefopt.likelihoods.head import Finish
from prefopt.likelihoods.plan import EncodedText
from prefopt.modalities.base import Steps
from prefopt.oracles.comparison import doubt
from prefopt.oracles.direction import Selection
from prefopt.oracles.head import HeadProbe, Response
from prefopt.oracles.plain import PlainProbe
from prefopt.oracles.step import Probe, StepReport, StepSettings, oracle_step

EARLY = 5
"""So many first iterations are looked at for a radius that answers nothing."""


def check_oracle(config: TrainConfig) -> None:
    """Raise ConfigError for settings that an oracle cannot work with."""
    if config.use_peft or config.load_in_4bit or config.load_in_8bit:
        raise ConfigError(
            "stage=oracle moves the model's own weights: leave out use_peft, load_in_4bit and load_in_8bit, or merge adapters first"
        )
    if config.dtype in ("bfloat16", "float16"):
        raise ConfigError(
            f"stage=oracle changes weights by about 1e-6 an entry, which {config.dtype} loses: use dtype=float32"
        )
    if config.radius_relative is not None and config.radius != TrainConfig.model_fields["radius"].default:
        raise ConfigError(
            "radius: and radius_relative, which takes its place, is given too. Leave one of them out"
        )
    try:
        re.compile(config.perturbed)
    except re.error as error:
        raise ConfigError(f"perturbed={config.perturbed} is no regular expression: {error}") from error
    settings_of(config, radius=config.radius)


def settings_of(config: TrainConfig, radius: float) -> StepSettings:
    """The iteration's settings as configured.

    Raises:
        ConfigError: they exclude each other.
    """
    given = {name: getattr(config, name) for name in ("lambda_g", "clip_sigma", "keep_fraction")}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1 and config.keep_fraction == TrainConfig.model_fields["keep_fraction"].default:
        del given["keep_fraction"]  # its default gives way; any other value is a contradiction
    try:
        selection = Selection(**given)
        return StepSettings(
            perturbations=config.perturbations,
            radius=radius,
            gate=config.gate,
            gamma=config.step_size,
            selection=selection,
            sampler=config.perturbation_sampler,
            accept_check=config.accept_check,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def untie(model: Any) -> bool:
    """Give the output projection weights of its own where it shares the embedding's; whether it did."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is not embedding.weight:
        return False
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    return True


def moved_parameters(model: Any, perturbed: str) -> list[nn.Parameter]:
    """The parameters that moves are tried on.

    Raises:
        ConfigError: none is named so.
    """
    if perturbed == "head":
        return [model.get_output_embeddings().weight]
    named = dict(model.named_parameters())
    found = [p for name, p in named.items() if re.search(perturbed, name)]
    if not found:
        raise ConfigError(
            f"no parameter is named like perturbed={perturbed}; there are, for example, {', '.join(list(named)[-3:])}"
        )
    return found


class OracleRule:
    """One iteration of ComPO for each update.

    Freezes everything but what moves.

    Args:
        config: see `OracleKeys`.
        model: the policy.
        say: told what a user should know.

    Raises:
        ConfigError: no parameter is named so.
    """

    by_gradient = False

    def __init__(self, config: TrainConfig, model: nn.Module, say: Callable[[str], None]) -> None:
        inner: Any = causal_lm(model)
        self.inner = inner
        self.head = self.inner.get_output_embeddings()
        self.fast = config.perturbed == "head"
        self.moved = moved_parameters(self.inner, config.perturbed)
        model.requires_grad_(False)
        for parameter in self.moved:
            parameter.requires_grad_(True)
        radius = config.radius
        if config.radius_relative is not None:
            flat = torch.cat([p.detach().flatten() for p in self.moved])
            radius = config.radius_relative * float(flat.std())
        self.settings = settings_of(config, radius)
        finish = Finish.of(self.inner.config.get_text_config())
        self.finish = None if finish == Finish() else finish
        self.fast_sampling = config.fast_sampling and config.perturbation_sampler == "gaussian"
        self.seed, self.say = config.seed, say

    def __call__(self, loop: Steps, examples: Sequence[Encoded[EncodedText]]) -> None:
        """Try moves on these pairs, and go where they point if enough of them helped."""
        self.inner.eval()
        pairs = [
            (e.items[edge.first], e.items[edge.second])
            for e in examples
            for edge in e.comparisons
            if edge.second is not None
        ]
        # outside of autocast, which only the trunk runs under: moves change log-probabilities by less than bf16 keeps
        report = oracle_step(self.probe(pairs), self.settings, self.seed, loop.step)
        loop.tokens += sum(len(item.ids) for pair in pairs for item in pair)
        self.note(loop, report)

    def probe(self, pairs: Sequence[tuple[EncodedText, EncodedText]]) -> Probe:
        """What the moves are tried on."""
        if not self.fast:
            return PlainProbe(self.moved, lambda: self.logps(pairs))
        return HeadProbe(
            self.head.weight.data,
            [(self.response(chosen), self.response(rejected)) for chosen, rejected in pairs],
            getattr(self.head, "bias", None),
            self.finish,
            fast_sampling=self.fast_sampling,
        )

    @torch.no_grad()
    def response(self, item: EncodedText) -> Response:
        """What the head reads at the places that predict a completion."""
        ids_T = torch.tensor(list(item.ids), device=self.head.weight.device)
        read: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda module, given: read.append(given[0]))
        try:
            self.inner(input_ids=ids_T[None, :-1], use_cache=False)
        finally:
            hook.remove()
        return Response(read[0][0, item.start - 1 :], ids_T[item.start :])

    @torch.no_grad()
    def logps(self, pairs: Sequence[tuple[EncodedText, EncodedText]]) -> tuple[Tensor, Tensor]:
        """(S,) log-probabilities of chosen and rejected completions, a row at a time."""
        sides = []
        for side in zip(*pairs, strict=True):
            found = []
            for item in side:
                ids_T = torch.tensor(list(item.ids), device=self.head.weight.device)
                logits_TV = self.inner(input_ids=ids_T[None, :-1], use_cache=False).logits[
                    0, item.start - 1 :
                ]
                logp_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32)).log_softmax(-1)
                found.append(logp_TV.gather(-1, ids_T[item.start :, None]).double().sum())
            sides.append(torch.stack(found))
        return sides[0], sides[1]

    def note(self, loop: Steps, report: StepReport) -> None:
        """Log the iteration."""
        stepped = report.skipped == ""
        values = {
            "compo/success_rate": report.success_rate,
            "compo/stepped": float(stepped),
            "compo/update_norm": report.update_norm,
        }
        for name, value in values.items():
            loop.metrics.add(name, torch.tensor([value]))
        if stepped:
            loop.metrics.add("compo/kept_fraction", torch.tensor([report.kept_fraction]))
            loop.metrics.add("compo/delta_logp_chosen", report.change_S2[:, 0].cpu())
            loop.metrics.add("compo/delta_logp_rejected", report.change_S2[:, 1].cpu())
        trouble = doubt(report.success_rate)
        if loop.step < EARLY and trouble is not None and report.skipped != "identical":
            self.say(f"iteration {loop.step + 1}: {trouble}")
