"""Text: causal language models of transformers, token likelihoods, generated samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from prefopt.comparisons import Encoded
from prefopt.config import ConfigError, TrainConfig
from prefopt.evaluation.reward_names import reward_named
from prefopt.evaluation.rewards import TextReward
from prefopt.likelihoods.capability import check_looks_back
from prefopt.likelihoods.compiling import check_compiler, compile_parts
from prefopt.likelihoods.forward import balance_experts
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.machine import memory
from prefopt.modalities.base import Context, Probe, Setup
from prefopt.modalities.models import lora_settings, model_folder, quantization, weight_dtype
from prefopt.modalities.probes import SampleProbe
from prefopt.modalities.splits import (
    PreparedData,
    digest,
    has_ties,
    merge_dropped,
    prompt_key,
    read,
)
from prefopt.modalities.text.changed import with_changed
from prefopt.modalities.text.encoding import encode_examples, positions_hint
from prefopt.modalities.text.further import FURTHER
from prefopt.modalities.text.memory import TextMemory, resident, settle
from prefopt.modalities.text.mismatched import with_mismatched
from prefopt.modalities.text.oracle import OracleRule, check_oracle, untie
from prefopt.modalities.text.rows import load_comparisons
from prefopt.modalities.text.samples import TextSamples
from prefopt.models.loading import (
    LoadedModel,
    LoraSettings,
    adapter_base,
    load_model,
    load_tokenizer,
    trainable_parameters,
)
from prefopt.models.positions import likelihood_for
from prefopt.models.quantized import Quantization, check_installed
from prefopt.models.saving import save_model
from prefopt.models.sources import CAUSAL, check_causal
from prefopt.models.tokenizers import check_places, check_reference
from prefopt.objectives.base import Objective
from prefopt.sources.collecting import Comparisons
from prefopt.sources.report import Hint
from prefopt.worlds import world_of


class Language:
    """What a run on models of text brings; models that read more than text bring the rest (`vision_language/setup.py`).

    Attributes:
        loader: auto class of transformers, one of `models.sources.LOADERS`.
        tokenizer: of the model, once `open` was called.
        kind_of_tokens: of a completion, for models that are told it of each token.
    """

    loader = CAUSAL
    tokenizer: Any
    kind_of_tokens: int | None = None

    def open(self, source: str) -> None:
        """Load what makes tokens."""
        self.tokenizer = load_tokenizer(source)

    def likelihood(self, source: str, config: TrainConfig, reference: str) -> TokenLikelihood:
        """Rows that fit both models."""
        return likelihood_for(source, config.max_length, reference, tokenizer=self.tokenizer)

    def rows(self, config: TrainConfig, objective: Objective) -> Callable[..., Comparisons]:
        """The reader of rows.

        Raises:
            ConfigError: the objective reads more than rows of text have.
        """
        own = ("mismatched", *FURTHER)
        if more := [name for name, branch in objective.branches.items() if branch.sample not in own]:
            raise ConfigError(
                f"{config.method} reads {', '.join(more)} of every row, which text has not: give a vision-language model"
            )
        return partial(load_comparisons, optional=objective.columns, branches=objective.branches)

    def lora(self, config: TrainConfig) -> LoraSettings | None:
        """Adapters as configured."""
        return lora_settings(config)

    def loaded(self, context: Context, model: nn.Module) -> None:
        """Whatever is to be done with a model before its training."""

    def ready(
        self, context: Context, model: nn.Module, likelihood: TokenLikelihood, data: PreparedData
    ) -> None:
        """Whatever is to be made of the data before its first forward pass; the model is on its device, and tried out."""

    def known(self, context: Context, likelihood: TokenLikelihood, data: PreparedData) -> None:
        """Whatever follows from the data; before the model is loaded."""

    def hints(self, likelihood: TokenLikelihood) -> list[Hint]:
        """What encoding did to the rows beside cutting them."""
        return []

    def encoded(
        self, examples: list[Encoded[EncodedText]], objective: Objective
    ) -> list[Encoded[EncodedText]]:
        """Examples as the objective reads them."""
        return examples

    def first_pair(self, context: Context, example: Encoded[EncodedText]) -> dict[str, Any]:
        """The first example decoded."""
        return first_pair(example, self.tokenizer)

    def samples(self, *args: Any) -> TextSamples:
        """Answers of the policy; arguments as of `TextSamples`."""
        return TextSamples(*args)

    def probe(
        self,
        inner: Probe,
        context: Context,
        model: nn.Module,
        likelihood: TokenLikelihood,
        data: PreparedData,
    ) -> Probe:
        """What is measured of the policy beside its samples."""
        return inner

    def save(self, folder: Path, policy: LoadedModel, state: dict[str, Any] | None) -> None:
        """The trained model, whole."""
        save_model(folder, policy, self.tokenizer, state)


def set_up(context: Context) -> Setup:
    """Data first, then the model; see `set_up_language`."""
    return set_up_language(context, Language())


def set_up_language(context: Context, language: Language) -> Setup:
    """Data first, then the model.

    Args:
        context: of the run.
        language: what its models read.

    Raises:
        ConfigError, ValueError, OSError: bad data, found before the model is loaded; a model that cannot be used.
    """
    config, objective, accelerator = context.config, context.objective, context.accelerator
    if objective.batch_coupled and config.per_device_train_batch_tokens is not None:
        raise ConfigError(
            f"{config.method} compares within a forward pass, so its examples must be counted: leave out "
            "per_device_train_batch_tokens and set per_device_train_batch_size"
        )
    if config.torch_compile:
        try:
            check_compiler(accelerator.device.type)
        except RuntimeError as error:
            raise ConfigError(str(error)) from None
    source = model_folder(config.model, accelerator)
    check_causal(source, trained=True, adapters=config.use_peft, loader=language.loader)
    lora, quantized = language.lora(config), quantization(config)
    check_quantized(config, source, quantized)
    named = named_reward(config)
    reference_source = (
        source if config.reference_model is None else model_folder(config.reference_model, accelerator)
    )
    if objective.needs_reference and reference_source != source:
        check_causal(reference_source, loader=language.loader)
    language.open(source)
    tokenizer = language.tokenizer
    likelihood = language.likelihood(source, config, reference_source)
    data = prepare(config, objective, likelihood, language)
    if likelihood.clock.asked:
        context.record.dated(likelihood.clock.day)
        context.console.say(likelihood.clock.told)
    used = partial(used_ids, data)
    check_places(tokenizer, source, used)
    untold = None
    if objective.needs_reference and reference_source != source:
        untold = check_reference(source, reference_source, tokenizer, used)
    context.announce(data, partial(language.first_pair, context, data.train[0]))
    language.known(context, likelihood, data)
    if untold is not None:
        context.record.check("reference's tokenizer", "note", untold)
        context.console.say(untold)

    dtype = weight_dtype(config)
    policy = load_model(
        source,
        dtype=dtype,
        lora=lora,
        quantization=quantized,
        attn_implementation=config.attn_implementation,
        loader=language.loader,
    )
    model: Any = policy.model
    language.loaded(context, model)
    if config.router_aux_loss_coef is not None:
        try:
            balance_experts(model, config.router_aux_loss_coef)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    if not trainable_parameters(model):
        raise ConfigError(f"nothing is trainable in {config.model}: every parameter is frozen")
    oracle = config.stage == "oracle"
    if oracle:
        check_oracle(config)
        if untie(model):
            context.console.say(
                "the output projection shared its weights with the embedding; it has its own now"
            )
    if quantized is None:
        model.to(accelerator.device)

    def load_reference() -> nn.Module:
        frozen = load_model(
            reference_source,
            dtype=dtype,
            quantization=quantized,
            attn_implementation=attention.name,
            trainable=False,
            loader=language.loader,
        ).model
        if reference_source != source:
            check_looks_back(frozen, language.kind_of_tokens)
        return frozen

    check_looks_back(model, language.kind_of_tokens)
    densest: Any = "shared" if config.batch_layout == "auto" else config.batch_layout
    if config.reference_model is not None and not alike(source, reference_source):
        densest = "plain"  # what is found of the policy need not hold for another architecture
    ability = likelihood.adapt(model, densest)
    context.record.check("batch layout", "note" if ability.reasons else "pass", str(ability))
    for reason in ability.reasons:
        context.console.say(f"slower than it could be: {reason}")
    with accelerator.autocast():
        attention = likelihood.attention(model, config.attn_implementation)
    if attention.reason is not None:
        context.record.check("attention", "note", f"FlexAttention is not used: {attention.reason}")
        context.console.say(f"slower than it could be: FlexAttention is not used: {attention.reason}")
    elif config.attn_implementation is None and attention.name is not None:
        context.record.check("attention", "pass", f"{attention.name} was found to give the same scores")

    language.ready(context, model, likelihood, data)
    need = TextMemory.of(
        config,
        model,
        likelihood,
        data.train,
        data.held_out,
        context.precision != "no",
        objective.needs_reference,
        policy.adapter is not None and policy.not_off is None,
    )
    fit = settle(need, memory.available(accelerator.device), resident(config))
    if fit.chosen:
        context.record.check("memory choices", "note", fit.chosen)
        context.console.say(fit.chosen)
    if fit.checkpointing:
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False} | config.gradient_checkpointing_kwargs
        )
        model.enable_input_require_grads()
    if config.torch_compile:
        parts = compile_parts(model)
        context.record.check(
            "torch_compile", "pass" if parts else "note", f"{parts} parts of layers run compiled in training"
        )

    def note_samples(told: str) -> None:
        context.record.check("samples", "note", told)
        context.console.say(told)

    world = world_of(config.data)
    reward = context.reward or named or (None if world is None else world.verify)
    return Setup(
        policy=policy,
        likelihood=likelihood,
        data=data,
        load_reference=load_reference,
        reference_kind="cached",
        forecast=lambda resident: need.forecast(fit.examples, fit.checkpointing, resident),
        batch_tokens=fit.tokens,
        probe=lambda reference: language.probe(
            SampleProbe(
                language.samples(config, likelihood, model, reference, data.prompts, reward, note_samples),
                model,
                accelerator,
                context.record,
            ),
            context,
            model,
            likelihood,
            data,
        ),
        save=lambda folder, state: language.save(folder, policy, state),
        rule=OracleRule(config, model, context.console.say) if oracle else None,
        not_off=policy.not_off,
    )


def named_reward(config: TrainConfig) -> TextReward | None:
    """What the key `reward` names.

    Raises:
        ConfigError: there is none of that name.
    """
    if config.reward is None:
        return None
    try:
        return reward_named(config.reward, "reward")
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_quantized(config: TrainConfig, source: str, quantized: Quantization | None) -> None:
    """Raise ConfigError if weights cannot be quantized, or nothing would be left to train."""
    if quantized is None:
        return
    if not config.use_peft and adapter_base(source) is None:
        raise ConfigError(
            f"{quantized.key}=true quantizes the weights, which cannot be trained then: set use_peft=true, which trains "
            f"adapters on them, or leave {quantized.key} out"
        )
    try:
        check_installed(quantized)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def alike(one: str, other: str) -> bool:
    """Whether two models are of one architecture, with the same rotary positions."""
    from transformers import AutoConfig

    # an adapter's folder need not hold its base model's configuration
    a, b = (AutoConfig.from_pretrained(adapter_base(x) or x) for x in (one, other))
    ropes = [getattr(x.get_text_config(), "rope_parameters", None) for x in (a, b)]
    return bool(a.model_type == b.model_type and ropes[0] == ropes[1])


def prepare(
    config: TrainConfig, objective: Objective, likelihood: TokenLikelihood, language: Language
) -> PreparedData:
    """Read, split, tokenize.

    Raises:
        ConfigError, ValueError, OSError: see the sources; always before any model runs.
    """
    split = read(config, objective, language.rows(config, objective))
    encoded = encode_examples(split.train, likelihood)
    train, held_out, dropped = encoded.examples, [], encoded.dropped
    limits = positions_hint(encoded, likelihood.asked_length, likelihood.positions)
    if split.held_out.examples:
        other = encode_examples(split.held_out, likelihood)
        held_out, dropped = other.examples, merge_dropped(dropped, other.dropped)
    objective.check_data(has_ties(train))
    report = encoded.report.to_dict()
    report["hints"] = [
        {"level": h.level, "text": h.text} for h in [*limits, *language.hints(likelihood), *split.hints]
    ] + list(report["hints"])
    train, held_out = language.encoded(train, objective), language.encoded(held_out, objective)
    if "mismatched" in objective.branches:
        samples, judged = prompted(split.train, train), prompted(split.held_out, held_out)
        train = with_mismatched(samples, likelihood.max_length)
        held_out = with_mismatched(judged, likelihood.max_length, others=samples)
    if "changed" in objective.needs:
        train, held_out = with_changed(train), with_changed(held_out)
    return PreparedData(
        train=train,
        held_out=held_out,
        prompts=split.prompts,
        report=report,
        dropped=dropped,
        fingerprint=digest([*train, *held_out], likelihood.key),
        not_held_out=split.not_held_out,
    )


def prompted(
    comparisons: Comparisons, examples: Sequence[Encoded[EncodedText]]
) -> list[tuple[str, Encoded[EncodedText]]]:
    """Encoded examples behind a name of their prompt, equal for equal prompts."""
    prompt_of = {example.id: prompt_key(example) for example in comparisons}
    return [(prompt_of[e.id], e) for e in examples]


def used_ids(data: PreparedData) -> set[int]:
    """Every token id that the model will be given."""
    found: set[int] = set()
    for example in (*data.train, *data.held_out):
        for item in (*example.items, *example.aside):
            found.update(item.ids)
            if item.reference is not None:
                found.update(item.reference.ids)
    return found


def first_pair(example: Encoded[EncodedText], tokenizer: Any) -> dict[str, Any]:
    """The first example decoded, prompt and scored tokens apart."""
    edge = example.comparisons[0]
    ends = [("chosen", edge.first)] + ([] if edge.second is None else [("rejected", edge.second)])
    sides = []
    for name, index in ends:
        item = example.items[index]
        parts = (item.ids[: item.start], item.ids[item.start :])
        sides.append(
            {
                "name": name,
                "tokens": len(item.ids),
                "scored": item.length,
                "truncated": item.truncated,
                "segments": [
                    {"text": tokenizer.decode(list(part)), "scored": bool(k), "token_count": len(part)}
                    for k, part in enumerate(parts)
                ],
            }
        )
    return {"id": example.id, "outcome": list(edge.outcome), "sides": sides}
