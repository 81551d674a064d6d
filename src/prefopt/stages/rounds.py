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
from prefopt.evaluation.rewards import TextReward
from prefopt.files import GO_ON, write_whole
from prefopt.generation.base import text_of
from prefopt.generation.reload import LORA, check_reload
from prefopt.generation.server import Connection, check_server
from prefopt.methods import Method
from prefopt.modalities.models import without_adapters
from prefopt.objectives.base import Objective
from prefopt.objectives.robust import SPA, SSAPO
from prefopt.runs.console import Console
from prefopt.sources.annotation import least_confident
from prefopt.sources.prompts import NamedPrompt
from prefopt.sources.worst_case import UNMOVED, worst_case
from prefopt.stages.answers import Answers
from prefopt.stages.folder import Reward, StagedFolder, read_rows, write_rows
from prefopt.stages.judging import Judge, RewardJudge, against, known_reward, the_judge
from prefopt.stages.material import Material, material_of, named_rows, split_data, written
from prefopt.stages.pace import Stopwatch, in_words
from prefopt.stages.pairing import against_opponent, best_and_worst, usable, with_reference_side
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
    check_rounds(config, objective, method)
    verify = known_reward(config, reward)
    judge = the_judge(config, method, verify)
    if verify is None and isinstance(judge, RewardJudge):
        verify = judge.reward
    with StagedFolder(config, hyper) as folder:
        config = folder.config
        data = folder.path / "stages" / "data"
        parts = None if folder.resuming and written(data) else split_data(config, objective, answers, method)
        folder.open()
        if parts is not None:
            parts.write(folder.stage("data"))
        material = material_of(config, data)
        labelled = len(read_rows(material.labelled))
        folder.begin(told(config, material, labelled), labelled or len(material.prompts))
        rounds = Rounds(folder, material, method, objective, judge, verify, answers)
        rounds.judge_held_out()
        model = rounds.first_run(hyper, labelled) if labelled else Path(config.model)
        for number in range(1, config.rounds + 1):
            model = rounds.round(number, model, hyper)
        return folder.finish(model)


def told(config: TrainConfig, material: Material, labelled: int) -> str:
    """What the stages are, in a sentence or two."""
    began = (
        f"{labelled:,} labelled pairs, then"
        if labelled
        else f"{len(material.prompts):,} prompts without labels,"
    )
    text = f"{began} {config.rounds} round{'s' * (config.rounds != 1)}."
    if material.held_prompts:
        text += f" Judged on {len(material.held_prompts):,} held-out prompts, by answers that the starting model wrote to them."
    if material.dropped:
        text += f" {material.dropped:,} rows or prompts were left out; stages/data/dropped.jsonl says why."
    return text


def check_rounds(config: TrainConfig, objective: Objective, method: Method) -> None:
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
    if method.opponent:
        default = type(config).model_fields["seed_pairs"].default
        if config.seed_pairs not in (0, default):
            raise ConfigError(
                f"{method.name} begins with prompts, and the labels of no row are used: leave seed_pairs out, or train on "
                "labelled pairs first (prefopt train dpo) and give that model"
            )
        if config.responses % 2:
            raise ConfigError(
                f"responses={config.responses}: {method.name} samples half of the answers from the policy and half from its "
                "opponent; needed an even number"
            )
    if config.generation_server is not None:
        try:
            if config.generation_reload in (None, LORA):
                check_server(config.generation_server, config.model)
            else:  # which the command will start
                Connection(config.generation_server, config.model)
        except ValueError as error:
            raise ConfigError(f"generation_server: {error}") from None
    check_reloading(config)


def check_reloading(config: TrainConfig) -> None:
    """Raise ConfigError where the server cannot be given a round's weights as `generation_reload` says."""
    how, url = config.generation_reload, config.generation_server
    if how is None:
        return
    if url is None:
        raise ConfigError(
            "generation_reload tells how a server gets weights, and there is none: give generation_server"
        )
    if how == LORA and not config.use_peft and not (Path(config.model) / "adapter_config.json").is_file():
        raise ConfigError(
            "generation_reload=lora hands adapters to the server, and all weights are trained: set use_peft=true, or give a "
            "command that makes the server load {model}"
        )
    try:
        check_reload(url, how)
    except ValueError as error:
        raise ConfigError(str(error)) from None


class Rounds:
    """The rounds of one method in one folder.

    Args:
        folder: of the method.
        material: what there is to start from.
        method: says who labels, and who answers beside the policy.
        objective: its constants decide what the adversary is asked.
        judge: labels answers; None: the policy does.
        verify: the true reward where it is known, to compare labels with; never trained on by self-labelled methods.
        answers: what the model's modality offers.
    """

    def __init__(
        self,
        folder: StagedFolder,
        material: Material,
        method: Method,
        objective: Any,
        judge: Judge | None,
        verify: TextReward | None,
        answers: Answers,
    ) -> None:
        self.folder, self.material, self.method, self.objective = folder, material, method, objective
        self.judge, self.verify, self.answers = judge, verify, answers
        self.config = folder.config

    def first_run(self, hyper: Mapping[str, Any], pairs: int) -> Path:
        """Train on the labelled pairs; returns the folder of the model."""
        return self.folder.run(
            "0", self.verify, hyper, {"pairs": pairs}, data=str(self.material.labelled), eval_data=self.held_out,
            eval_size=0, num_train_epochs=self.config.seed_epochs,
            label_noise=0.0,  # drawn when the pairs were gathered
        )  # fmt: skip

    @property
    def held_out(self) -> str | None:
        """Pairs to judge by: given ones, or those that `judge_held_out` made."""
        if self.material.held_out is not None or not self.material.held_prompts:
            return self.material.held_out
        place = self.folder.stage("data") / "held_out.jsonl"
        return str(place) if place.exists() else None

    def judge_held_out(self) -> None:
        """Where no pairs are held out but prompts are: the starting model answers them, and the judge makes pairs of it.

        What later models are compared with, too.
        """
        stage = self.folder.stage("data")
        if not self.material.held_prompts or (stage / "held_out.json").exists():
            return
        prompts, labels = self.asked(0, stage, self.config.model, self.material.held_prompts)
        rows: list[dict[str, Any]] = []
        try:
            rows, found = self.pairs(prompts, labels)
        except ValueError as error:  # the judge finds all of them equal
            found = {"pairs": 0, "why": str(error)}
        if rows:
            write_rows(stage / "held_out.jsonl", rows)
        write_whole(stage / "held_out.json", json.dumps(found, indent=1), advice=GO_ON)

    def round(self, number: int, model: Path, hyper: Mapping[str, Any]) -> Path:
        """Sample with a model, label, pair, find the worst case, and train; returns the folder of the next model."""
        stage = self.folder.stage(str(number))
        pairs = stage / "pairs.jsonl"
        if not pairs.exists():
            self.prepare(number, stage, str(model))
        untrained = str(model) == self.config.model
        reference = self.config.reference_model or (None if untrained else self.config.model)
        found = json.loads((stage / "round.json").read_text("utf-8"))
        if (stage / "sampling.json").exists():  # earlier versions did not write it
            found |= json.loads((stage / "sampling.json").read_text("utf-8"))
        trained = self.folder.run(
            str(number), self.verify, hyper, found, model=str(model), data=str(pairs), eval_data=self.held_out,
            eval_size=0, label_noise=0.0,
            reference_model=reference if self.config.train_reference == "start" else None,
            # an adapter of the round before is trained on as it is
            **({} if untrained else without_adapters()),
        )  # fmt: skip
        self.compare(stage, trained)
        return trained

    def compare(self, stage: Path, model: Path) -> None:
        """Where prompts are held out: how often the judge prefers a trained model's answers to the starting model's."""
        prompts, place = self.material.held_prompts, stage / "held_out.json"
        if not prompts:
            return
        if not place.exists():
            count = self.config.responses
            # noise of its own: with that of the starting model, the two would agree more than independent answers do
            ours = self.answers.sample(
                self.config, str(model), prompts, stage / "held_out_answers.jsonl", 0, range(count, count + 1)
            )
            theirs = self.answers_of_start()
            assert self.judge is not None, "without labels a judge is asked"
            start = self.folder.stage("data")
            cut = (cut_short(stage, "held_out_answers"), count), (cut_short(start, "answers"), 0)
            ended = [[(name, k) not in short for name, _ in prompts] for short, k in cut]
            found = against(self.judge, stage, prompts, ours, theirs, ended)
            write_whole(place, json.dumps(found), advice=GO_ON)
        self.folder.whole.stages[-1].measure(json.loads(place.read_text("utf-8")))

    def answers_of_start(self) -> list[str]:
        """The first answer of the starting model to each held-out prompt."""
        lines = read_rows(self.folder.stage("data") / "answers.jsonl")[1:]
        found = {row["id"]: row["text"] for row in lines if row["sample"] == 0}
        return [found[name] for name, _ in self.material.held_prompts]

    def prepare(self, number: int, stage: Path, model: str) -> None:
        """Everything between the last training and the next; `pairs.jsonl` is written last."""
        config, clock = self.config, Stopwatch(stage)
        prompts = self.prompts(number)
        write_rows(stage / "prompts.jsonl", named_rows(prompts))
        asked, labels = self.asked(number, stage, model, prompts, clock)
        rows, found = self.pairs(asked, labels)
        if config.accumulate:
            rows = self.earlier(number) + rows
            found["trained_pairs"] = len(rows)
        write_whole(stage / "round.json", json.dumps(found, indent=1), advice=GO_ON)
        told = clock.told()
        write_whole(stage / "sampling.json", json.dumps(told, indent=1), advice=GO_ON)
        Console(main=True).say(f"round {number}: {in_words(told)}")
        write_rows(stage / "pairs.jsonl", rows)

    def asked(
        self,
        number: int,
        stage: Path,
        model: str,
        prompts: Sequence[NamedPrompt],
        clock: Stopwatch | None = None,
    ) -> tuple[list[NamedPrompt], list[dict[str, Any]]]:
        """Prompts, answered and labelled; where an opponent answers, too, one entry for each of its answers."""
        config, count = self.config, self.config.responses
        if self.method.opponent:
            half = count // 2
            ours = self.answers.sample(config, model, prompts, stage / "answers.jsonl", number, range(half))
            # numbers of their own: with the policy's noise, a mixture near it would repeat its answers
            theirs = self.answers.sample(
                config,
                model,
                prompts,
                stage / "opponents.jsonl",
                number,
                range(half, count),
                self.method.opponent,
            )
            duels = [(p, k) for p in range(len(prompts)) for k in range(half)]
            answers = [[ours[p][k], theirs[p][k]] for p, k in duels]
            numbers = [(prompts[p][0], [k, half + k]) for p, k in duels]
            prompts = [
                (prompts[p][0] if half == 1 else f"{prompts[p][0]}/{k}", prompts[p][1]) for p, k in duels
            ]
        else:
            answers = self.answers.sample(config, model, prompts, stage / "answers.jsonl", number)
            numbers = [(name, list(range(count))) for name, _ in prompts]
        if clock is not None:
            clock.sampled()
        labelled = stage / "labels.jsonl"
        if not labelled.exists():
            cut = cut_short(stage, "answers", "opponents")
            ended = [[(name, k) not in cut for k in ks] for name, ks in numbers]
            write_rows(labelled, self.labelled(stage, model, prompts, answers, ended))
        return list(prompts), read_rows(labelled)

    def labelled(
        self,
        stage: Path,
        model: str,
        prompts: Sequence[NamedPrompt],
        answers: Sequence[Sequence[Any]],
        ended: Sequence[Sequence[bool]],
    ) -> list[dict[str, Any]]:
        """A row a prompt: the answers that say something, and what the judge, or policy and reference, make of them.

        Args:
            stage: folder of the round.
            model: that answered.
            prompts: of the round.
            answers: to each.
            ended: whether each came to its end, rather than being cut.
        """
        kept = [[k for k, answer in enumerate(row) if text_of(answer).strip()] for row in answers]
        rows = [[row[k] for k in ks] for row, ks in zip(answers, kept, strict=True)]
        whole = [[row[k] for k in ks] for row, ks in zip(ended, kept, strict=True)]
        scores: list[dict[str, Any]]
        if self.judge is None:
            policy, reference = self.answers.score(self.config, model, prompts, rows, whole)
            scores = [{"logp_policy": p, "logp_reference": r} for p, r in zip(policy, reference, strict=True)]
        else:
            scores = self.judge.labels(stage, prompts, rows, whole)
            if (penalty := self.config.missing_eos_penalty) is not None:
                for found, ends in zip(scores, whole, strict=True):
                    found["score"] = [
                        s - penalty * (not e) for s, e in zip(found["score"], ends, strict=True)
                    ]
        return [
            {"id": name, "answers": row, "ended": ends, **found}
            for (name, _), row, ends, found in zip(prompts, rows, whole, scores, strict=True)
        ]

    def prompts(self, number: int) -> list[NamedPrompt]:
        """The prompts of a round, none of which another round has."""
        pool, rounds = self.material.prompts, self.config.rounds
        size = self.config.prompts_per_round or len(pool) // rounds
        return pool[(number - 1) * size : number * size]

    def pairs(
        self, prompts: Sequence[NamedPrompt], labels: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows to train on, and what is worth knowing of the round."""
        config = self.config
        judged = usable(prompts, labels, config.judge)
        found: dict[str, Any] = {"prompts": len(prompts)}
        if self.method.opponent == "mixture":
            rows = against_opponent(judged, rewards=isinstance(self.judge, RewardJudge))
            found |= {"pairs": len(rows), "dropped": judged.dropped, **judged.facts(labels)}
            return rows, found | {"probability": fmean(row["probability"] for row in rows)}
        beta = float(self.objective.beta) if self.judge is None else None
        rows, dropped = best_and_worst(judged, beta)
        if self.method.opponent == "reference":
            rows = with_reference_side(rows, judged)
            found["probability"] = 1 - fmean(row["reference_first"] for row in rows)
        found |= {"pairs": len(rows), "dropped": dropped | judged.dropped, **judged.facts(labels)}
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
        answers = [text_of(row[side]) for side in ("chosen", "rejected")]
        ends = [row[f"{side}_ended"] for side in ("chosen", "rejected")]
        chosen, rejected = self.verify.scores([row["prompt"]] * 2, answers, ends)
        return 0.5 if chosen == rejected else float(chosen > rejected)

    def earlier(self, number: int) -> list[dict[str, Any]]:
        """The labelled pairs, which no adversary moves, and the pairs of the rounds before."""
        unmoved = UNMOVED if isinstance(self.objective, SSAPO) else {}
        # prompts come from elsewhere and may use the same ids
        gold = [row | unmoved | {"id": f"labelled-{row['id']}"} for row in read_rows(self.material.labelled)]
        if number == 1:
            return gold
        return read_rows(self.folder.stage(str(number - 1)) / "pairs.jsonl")  # holds all before it


def cut_short(stage: Path, *names: str) -> set[tuple[str, int]]:
    """(id of the prompt, number of the sample) of the answers that were cut before their end, by the journals' names."""
    paths = [stage / f"{name}.jsonl" for name in names]
    lines = [row for path in paths if path.exists() for row in read_rows(path)[1:]]
    return {(row["id"], row["sample"]) for row in lines if not row["ended"]}
