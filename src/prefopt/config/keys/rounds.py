"""Rounds of training on answers that the policy samples."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import STAGES, Keys, Needs

ROUNDS = Needs(("rounds",), "rounds", "which {method} has none of")
ADVERSARY = Needs(("ssapo",), "ssapo's adversary", "and {method} has none")
DOUBTS = Needs(("spa",), "spa", "and {method} smooths no labels")
JUDGED_ROUNDS = Needs(
    ("judged",), "rounds whose answers a judge scores (such as online_dpo)", "which {method} has none of"
)
MIXTURE = Needs(("nash_md",), "nash_md's opponent", "and {method} has none")


class RoundKeys(Keys):
    """Keys of rounds."""

    where: ClassVar[tuple[Needs, ...]] = (STAGES, ROUNDS)

    rounds: int = Field(3, ge=0, description="rounds after the first training on labelled pairs")
    seed_pairs: int = Field(
        2000,
        ge=0,
        description="rows of `data` whose labels are used; the others give prompts alone. 0, or data of prompts alone: judged "
        "methods begin with the first round",
    )
    seed_selection: Literal["first", "random", "farthest"] = Field(
        "first",
        description="which rows those are; farthest: prompts far from each other, by the starting model's hidden states",
    )
    seed_epochs: float = Field(1.0, gt=0, description="passes over the labelled pairs before the first round")
    prompts: str | None = Field(
        None, description="prompts without labels, instead of those of the other rows of `data`"
    )
    prompts_per_round: int | None = Field(
        None, ge=1, description="new prompts of a round; None: all, shared out evenly"
    )
    responses: int = Field(
        2,
        ge=2,
        description="answers sampled a prompt; the best and the worst make a pair. nash_md, xpo: half of them the opponent's",
    )
    response_tokens: int = Field(300, ge=1, description="most new tokens of an answer")
    response_temperature: float = Field(0.7, gt=0, description="of sampling answers")
    response_top_p: float = Field(1.0, gt=0, le=1, description="nucleus that answers are sampled from")
    generation_server: str | None = Field(
        None,
        description="address of an OpenAI-compatible server that samples answers; it is asked for the round's model by "
        "its folder (`transformers serve`, started without a model, loads it). None: sample here",
    )
    generation_reload: str | None = Field(
        None,
        description="how that server gets a round's weights, if it loads no folders by name: lora (vLLM's load_lora_adapter, for "
        "adapters), or a command in which {model} stands for the folder",
    )
    missing_eos_penalty: Annotated[float | None, JUDGED_ROUNDS] = Field(
        None, gt=0, description="taken off the reward of an answer that was cut before its end"
    )
    mixture_coef: Annotated[float, MIXTURE] = Field(
        0.5,
        ge=0,
        le=1,
        description="nash_md: weight of the reference in the opponent, which samples from pi^(1-c) pi_ref^c",
    )
    accumulate: bool = Field(False, description="train each round on the pairs of all rounds so far")
    train_reference: Literal["start", "previous"] = Field(
        "start", description="reference of training: the starting model, or the one that begins the round"
    )
    epsilon: Annotated[float, ADVERSARY] = Field(
        0.01, ge=0, description="ssapo: radius of the ball, in the leader's units; 0: no adversary"
    )
    group_size: Annotated[int | None, ADVERSARY] = Field(
        None, ge=1, description="ssapo: pairs that share a budget; None: all of a round"
    )
    doubted_share: Annotated[float, DOUBTS] = Field(
        0.1, ge=0, le=1, description="spa: share of a round's pairs, the least sure, that is smoothed"
    )
