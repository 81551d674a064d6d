"""Training in rounds on answers that the policy writes: self-annotation (SPA, SSAPO) and online DPO with a judge.

    labelled pairs -> train -> [prompts -> sample -> label -> pair -> worst case -> train] x rounds

Every arrow leaves a file in `stages/N/`, written whole before the next begins: prompts.jsonl, answers.jsonl (a line as
soon as an answer is there), labels.jsonl, pairs.jsonl (with the adversary's constants as columns), round.json, and the
folder `run` of an ordinary run. Whoever resumes finds what is there and does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from prefopt.config import ConfigError, TrainConfig
from prefopt.files import GO_ON, write_whole
from prefopt.generation.base import last_turn, text_of
from prefopt.generation.server import check_server
from prefopt.methods import Method
from prefopt.modalities.models import without_adapters
from prefopt.objectives.base import Objective
from prefopt.objectives.robust import SPA, SSAPO
from prefopt.sources.annotation import annotate, least_confident, pair_rows
from prefopt.sources.prompts import NamedPrompt
from prefopt.sources.worst_case import UNMOVED, worst_case
from prefopt.stages.answers import Answers
from prefopt.stages.folder import Reward, StagedFolder, read_rows, write_rows
from prefopt.stages.judging import Judge, RewardJudge, the_judge
from prefopt.stages.material import Material, material_of, split_data, verifier, written
from prefopt.training.run import RunOutcome, build_objective


def train_in_rounds(
    config: TrainConfig, hyper: Mapping[str, Any], method: Method, reward: Reward | None, answers: Answers
) -> RunOutcome:
    """The whole method.

    Args:
        config: of the method.
        hyper: of its objective.
        method: says who labels.
        reward: of (prompt, answer): the judge of judged methods where no `judge` is named, and reported on samples.
        answers: what the model's modality offers.

    Raises:
        ConfigError, ValueError, OSError: bad input, before any model is loaded.
        StopRun: a run cannot go on.
    """
    objective = build_objective(config, hyper)
    check_rounds(config, objective)
    verify = reward or verifier(config)
    judge = the_judge(config, method, verify)
    if verify is None and isinstance(judge, RewardJudge):
        verify = judge.reward
    with StagedFolder(config, hyper) as folder:
        config = folder.config
        data = folder.path / "stages" / "data"
        parts = None if folder.resuming and written(data) else split_data(config, objective, answers)
        folder.open()
        if parts is not None:
            parts.write(folder.stage("data"))
        material = material_of(config, data)
        labelled = len(read_rows(material.labelled))
        told = f"{labelled:,} labelled pairs, then {config.rounds} round{'s' * (config.rounds != 1)}."
        if material.dropped:
            told += (
                f" {material.dropped:,} rows or prompts were left out; stages/data/dropped.jsonl says why."
            )
        folder.begin(told, labelled)
        rounds = Rounds(folder, material, objective, judge, verify, answers)
        model = rounds.first_run(hyper, labelled)
        for number in range(1, config.rounds + 1):
            model = rounds.round(number, model, hyper)
        return folder.finish(model)


def check_rounds(config: TrainConfig, objective: Objective) -> None:
    """Raise ConfigError for settings that would fail, or mean nothing, in a later round; ConnectionError for no server."""
    if config.train_reference == "previous" and isinstance(objective, SSAPO) and config.epsilon > 0:
        raise ConfigError(
            "train_reference=previous makes every gap 0 when a round begins, so the adversary's constants, found at the "
            "gaps to the starting model, would not fit: leave it out, or set epsilon=0"
        )
    if config.reference == "adapter_off" and config.train_reference == "start":
        raise ConfigError(
            "reference=adapter_off leaves a round with the adapter that began it as reference: leave it out, or set "
            "train_reference=previous"
        )
    if config.doubted_share == 1:
        raise ConfigError("doubted_share=1 doubts every label; needed a share below 1, or use cdpo")
    if config.generation_server is not None:
        try:
            check_server(config.generation_server, config.model)
        except ValueError as error:
            raise ConfigError(f"generation_server: {error}") from None


class Rounds:
    """The rounds of one method in one folder.

    Args:
        folder: of the method.
        material: what there is to start from.
        objective: its constants decide what the adversary is asked.
        judge: labels answers; None: the policy does.
        verify: the true reward where it is known, to compare labels with; never trained on by self-labelled methods.
        answers: what the model's modality offers.
    """

    def __init__(
        self,
        folder: StagedFolder,
        material: Material,
        objective: Any,
        judge: Judge | None,
        verify: Reward | None,
        answers: Answers,
    ) -> None:
        self.folder, self.material, self.objective = folder, material, objective
        self.judge, self.verify, self.answers = judge, verify, answers
        self.config = folder.config

    def first_run(self, hyper: Mapping[str, Any], pairs: int) -> Path:
        """Train on the labelled pairs; returns the folder of the model."""
        return self.folder.run(
            "0", self.verify, hyper, {"pairs": pairs}, data=str(self.material.labelled), eval_data=self.material.held_out,
            eval_size=0, num_train_epochs=self.config.seed_epochs,
            label_noise=0.0,  # drawn when the pairs were gathered
        )  # fmt: skip

    def round(self, number: int, model: Path, hyper: Mapping[str, Any]) -> Path:
        """Sample with a model, label, pair, find the worst case, and train; returns the folder of the next model."""
        stage = self.folder.stage(str(number))
        pairs = stage / "pairs.jsonl"
        if not pairs.exists():
            self.prepare(number, stage, model)
        reference = self.config.reference_model or self.config.model
        found = json.loads((stage / "round.json").read_text("utf-8"))
        return self.folder.run(
            str(number), self.verify, hyper, found, model=str(model), data=str(pairs), eval_data=self.material.held_out,
            eval_size=0, label_noise=0.0,
            reference_model=reference if self.config.train_reference == "start" else None,
            **without_adapters(),  # an adapter of the round before is trained on as it is
        )  # fmt: skip

    def prepare(self, number: int, stage: Path, model: Path) -> None:
        """Everything between the last training and the next; `pairs.jsonl` is written last."""
        config = self.config
        prompts = self.prompts(number)
        write_rows(stage / "prompts.jsonl", ({"id": name, **condition} for name, condition in prompts))
        answers = self.answers.sample(config, str(model), prompts, stage / "answers.jsonl", number)
        labelled = stage / "labels.jsonl"
        if not labelled.exists():
            write_rows(labelled, self.labelled(stage, str(model), prompts, answers))
        rows, found = self.pairs(prompts, read_rows(labelled))
        if config.accumulate:
            rows = self.earlier(number) + rows
            found["trained_pairs"] = len(rows)
        write_whole(stage / "round.json", json.dumps(found, indent=1), advice=GO_ON)
        write_rows(stage / "pairs.jsonl", rows)

    def labelled(
        self, stage: Path, model: str, prompts: Sequence[NamedPrompt], answers: Sequence[Sequence[Any]]
    ) -> list[dict[str, Any]]:
        """A row a prompt: the answers that say something, and what the judge, or policy and reference, make of them."""
        rows = [[a for a in row if text_of(a).strip()] for row in answers]
        scores: list[dict[str, Any]]
        if self.judge is None:
            policy, reference = self.answers.score(self.config, model, prompts, rows)
            scores = [{"logp_policy": p, "logp_reference": r} for p, r in zip(policy, reference, strict=True)]
        else:
            scores = [{"score": found} for found in self.judge.scores(stage, prompts, rows)]
        return [
            {"id": name, "answers": row, **found}
            for (name, _), row, found in zip(prompts, rows, scores, strict=True)
        ]

    def prompts(self, number: int) -> list[NamedPrompt]:
        """The prompts of a round, none of which another round has."""
        pool, rounds = self.material.prompts, self.config.rounds
        size = self.config.prompts_per_round or len(pool) // rounds
        return pool[(number - 1) * size : number * size]

    def pairs(
        self, prompts: Sequence[NamedPrompt], scored: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows to train on, and what is worth knowing of the round."""
        config = self.config
        conditions = dict(prompts)
        judged = [row for row in scored if row.get("score", True) is not None]
        usable = [row for row in judged if len(row["answers"]) > 1]
        if not judged:
            raise ValueError(
                f"the verdicts of {config.judge} on all {len(scored)} prompts cannot be read: see verdicts.jsonl; the "
                "judge must reply with one word, A, B or tie. With one that does, start over with overwrite=true"
            )
        if not usable:
            raise ValueError(
                f"no pair came of {len(scored)} prompts: all answers of each but one were empty. Sample more `responses`, "
                "or train longer on labelled pairs that say something"
            )
        answers = [row["answers"] for row in usable]
        if self.judge is None:
            sides = [[row[f"logp_{side}"] for row in usable] for side in ("policy", "reference")]
            beta = float(self.objective.beta)
        else:
            sides, beta = [[row["score"] for row in usable], [[0.0] * len(row) for row in answers]], 1.0
        texts = [[text_of(a) for a in row] for row in answers]
        annotation = annotate(sides[0], sides[1], beta, texts)
        names = [row["id"] for row in usable]
        rows = pair_rows(annotation, [conditions[name]["prompt"] for name in names], answers, names)
        dropped = dict(annotation.dropped)
        if len(usable) < len(judged):
            dropped["empty_answers"] = len(judged) - len(usable)
        if len(judged) < len(scored):
            dropped["unreadable_verdicts"] = len(scored) - len(judged)
        found: dict[str, Any] = {"prompts": len(prompts), "pairs": len(rows), "dropped": dropped}
        found["answer_words"] = fmean(len(text_of(a).split()) for row in scored for a in row["answers"])
        xi = [row["xi"] for row in rows]
        found["mean_gap"] = fmean(xi)
        if self.verify is not None and self.judge != RewardJudge(self.verify):
            found["label_accuracy"] = fmean(self.agreement(row) for row in rows)
        if isinstance(self.objective, SSAPO):
            worst = worst_case(
                xi, epsilon=config.epsilon, space=self.objective.space, group_size=config.group_size,
                pieces=self.objective.pieces if self.objective.space == "probability" else None,
            )  # fmt: skip
            rows = [row | columns for row, columns in zip(rows, worst.columns(), strict=True)]
            found["worst_case"] = worst.summary()
        elif isinstance(self.objective, SPA) and config.doubted_share > 0:
            doubted = least_confident(xi, config.doubted_share)
            rows = [row | {"spa_flag": float(flag)} for row, flag in zip(rows, doubted, strict=True)]
        return rows, found

    def agreement(self, row: Mapping[str, Any]) -> float:
        """1 if the true reward ranks the pair the same way, 0.5 if it ties, else 0."""
        assert self.verify is not None
        turn = last_turn(row["prompt"])
        chosen, rejected = (self.verify(turn, text_of(row[side])) for side in ("chosen", "rejected"))
        return 0.5 if chosen == rejected else float(chosen > rejected)

    def earlier(self, number: int) -> list[dict[str, Any]]:
        """The labelled pairs, which no adversary moves, and the pairs of the rounds before."""
        unmoved = UNMOVED if isinstance(self.objective, SSAPO) else {}
        # prompts come from elsewhere and may use the same ids
        gold = [row | unmoved | {"id": f"labelled-{row['id']}"} for row in read_rows(self.material.labelled)]
        if number == 1:
            return gold
        return read_rows(self.folder.stage(str(number - 1)) / "pairs.jsonl")  # holds all before it
