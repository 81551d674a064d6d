"""The text world: rewrite tasks with an exact score, and a small chat model that does them half well.

    >>> from prefopt.worlds import get_world
    >>> world = get_world("text", seed=0)
    >>> world.verify("Sort: pear fig apple", "sure: apple fig pear")
    0.75
    >>> rows = world.comparisons(400, split="train")         # doctest: +SKIP
    >>> model = world.model_dir()                            # doctest: +SKIP

The model is pretrained on the spot (about half a minute on two cores, then cached): first on right answers, then on
answers of hurried writers, who are wordy or give up early. So it *can* do the tasks and often does not, which is what
preferences can mend: its samples score about 0.52, and a hundred steps of DPO (batches of 16, learning rate 1e-4, beta
0.1) on 400 comparisons bring them to about 0.77. Much longer or faster, and the small model begins to unlearn.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.cache import built_once
from prefopt.worlds.base import (
    Estimate,
    Split,
    cache_place,
    check_positive,
    check_shares,
    check_split,
    flipped,
    seed_of,
)
from prefopt.worlds.text import task

CODE_VERSION = 1
"""Part of every cache key. Raise it with any change to this package that changes a model or a sample."""

SKILLED_SHARE = 0.75
"""Share of the pretraining on right answers only, before the hurried writers' begin."""


@dataclass(frozen=True)
class Candidates:
    """Completions sampled for one prompt, and their exact scores in [0, 1]."""

    prompt: str
    completions: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class TextWorld:
    """Settings of the text world; what it makes depends on them alone (and, in the last digits, on the machine).

    Attributes:
        seed: of prompts, model and samples.
        min_words: fewest words of a list.
        max_words: most words of a list.
        fault_rate: how careless the demonstrations are that the model imitates; 0 is perfect, 1 the most.
        hidden_size: width of the model, a multiple of 32.
        num_hidden_layers: depth of the model.
        pretrain_steps: optimizer steps of the pretraining.
        pretrain_batch_size: conversations a step.
        pretrain_learning_rate: peak.
    """

    seed: int = 0
    min_words: int = 3
    max_words: int = 5
    fault_rate: float = 0.7
    hidden_size: int = 128
    num_hidden_layers: int = 3
    pretrain_steps: int = 1000
    pretrain_batch_size: int = 32
    pretrain_learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        if not 2 <= self.min_words <= self.max_words <= len(task.LEXICON):
            raise ValueError(
                f"needed 2 <= min_words <= max_words <= {len(task.LEXICON)}; "
                f"given {self.min_words} and {self.max_words}"
            )
        if not 0 <= self.fault_rate <= 1:
            raise ValueError(f"fault_rate must lie in [0, 1]; given {self.fault_rate}")
        if self.hidden_size < 32 or self.hidden_size % 32:
            raise ValueError(
                f"hidden_size must be a multiple of 32 (one attention head); given {self.hidden_size}"
            )
        check_positive(self, ("num_hidden_layers", "pretrain_steps", "pretrain_batch_size"))

    # -- the task ---------------------------------------------------------------------------------------------

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """`n` distinct prompts; the first k of them are `prompts(k)`. No prompt is in both splits.

        Raises:
            ValueError: unknown split, or fewer than `n` prompts exist.
        """
        check_split(split)
        rng = random.Random(f"prompts {split} {self.seed}")
        found: dict[str, None] = {}
        misses = 0
        while len(found) < n:
            prompt = self._draw_prompt(rng, split)
            misses = misses + 1 if prompt in found else 0
            found[prompt] = None
            if misses > 1000:
                raise ValueError(
                    f"{n} distinct {split} prompts asked for, about {len(found)} exist; raise max_words"
                )
        return list(found)

    def _draw_prompt(self, rng: random.Random, split: Split) -> str:
        while True:
            prompt = task.draw_prompt(rng, task.LEXICON, self.min_words, self.max_words)
            if task.split_of(prompt) == split:
                return prompt

    def verify(self, prompt: str, completion: str) -> float:
        """Exact score in [0, 1]: 1 - word edits to the right answer / words of the longer; case and punctuation are free.

        Raises:
            ValueError: `prompt` is not one of this world's.
        """
        return task.score(prompt, completion)

    def score_texts(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """`verify` of each prompt with the completion at the same place."""
        return [self.verify(p, c) for p, c in zip(prompts, completions, strict=True)]

    def reference_answer(self, prompt: str) -> str:
        """The right answer, in plain style."""
        return " ".join(task.solve(*task.parse_prompt(prompt)))

    @property
    def max_new_tokens(self) -> int:
        """Enough for any demonstration: words, a comma after each, preamble, sign-off, full stop, end."""
        return 2 * self.max_words + 10

    # -- the model --------------------------------------------------------------------------------------------

    def model_dir(self, progress: bool = True) -> Path:
        """Folder with the pretrained model and its tokenizer, for `from_pretrained`; made on first use, then cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """
        return built_once(self._place("model"), lambda folder: self._pretrain(folder, progress))

    def _pretrain(self, folder: Path, progress: bool) -> None:
        from prefopt.worlds.text import model as text_model

        def draw(rng: random.Random, done: float) -> tuple[str, str]:
            prompt = self._draw_prompt(rng, "train")
            fault_rate = self.fault_rate if done >= SKILLED_SHARE else 0.0
            return prompt, task.demonstrate(rng, prompt, task.LEXICON, fault_rate)

        text_model.pretrain(
            folder,
            seed=self.seed,
            draw=draw,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            steps=self.pretrain_steps,
            batch_size=self.pretrain_batch_size,
            learning_rate=self.pretrain_learning_rate,
            progress=progress,
        )

    def _place(self, kind: str, **more: Any) -> Path:
        """Cache folder named after everything its content depends on."""
        return cache_place("text", kind, self, CODE_VERSION, ("torch", "transformers", "tokenizers"), **more)

    # -- samples and comparisons ------------------------------------------------------------------------------

    def candidates(
        self,
        n_prompts: int,
        per_prompt: int = 8,
        split: Split = "train",
        temperature: float = 1.0,
        progress: bool = True,
    ) -> list[Candidates]:
        """Completions sampled from the pretrained model for `prompts(n_prompts, split)`, scored; cached on disk.

        Args:
            n_prompts: prompts.
            per_prompt: completions a prompt; some may be equal.
            split: "train" or "test".
            temperature: of the softmax.
            progress: show a bar if standard error is a terminal.
        """
        prompts = self.prompts(n_prompts, split)
        place = self._place(
            "candidates",
            n_prompts=n_prompts,
            per_prompt=per_prompt,
            split=split,
            temperature=float(temperature),
        )

        def build(folder: Path) -> None:
            from prefopt.worlds.text import model as text_model

            model, tokenizer = text_model.load(self.model_dir(progress))
            sampled = text_model.sample_completions(
                model,
                tokenizer,
                prompts,
                per_prompt,
                temperature=temperature,
                max_new_tokens=self.max_new_tokens,
                seed=seed_of(f"candidates {split} {self.seed}"),
                progress=progress,
            )
            with (folder / "candidates.jsonl").open("w", encoding="utf-8") as file:
                for prompt, completions in zip(prompts, sampled, strict=True):
                    scores = [self.verify(prompt, completion) for completion in completions]
                    line = {"prompt": prompt, "completions": completions, "scores": scores}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")

        text = (built_once(place, build) / "candidates.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        return [Candidates(x["prompt"], tuple(x["completions"]), tuple(x["scores"])) for x in lines]

    def comparisons(
        self,
        n_prompts: int,
        split: Split = "train",
        label_noise: float = 0.0,
        tie_share: float | None = None,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Preference rows in chat form: of each prompt's 8 candidates, the best beats the worst, and the two different
        ones nearest in score tie (rule R1, `prefopt.sources.mining.extremes_and_closest`).

        A prompt whose scores are all equal gives no win. `score_chosen` and `score_rejected` are the exact scores of
        the texts they stand with, also in a flipped row.

        Args:
            n_prompts: prompts; each gives at most one win and one tie.
            split: "train" or "test".
            label_noise: share of the wins whose sides are exchanged, in [0, 1]. What is flipped at some share is also
                flipped at a larger one.
            tie_share: share of ties among the rows, by leaving out ties or, if there are too few, wins; None keeps all.
            seed: of which rows are left out or flipped.

        Returns:
            Rows with `prompt`, `chosen`, `rejected` (messages), `label` ("win" or "tie"), `score_chosen`,
            `score_rejected`, `source`, and the `id` and `rule` that mining gives.

        Raises:
            ValueError: a share outside [0, 1].
        """
        check_shares(label_noise=label_noise, tie_share=tie_share)
        from prefopt.sources.mining import extremes_and_closest

        mined = extremes_and_closest(
            {
                "id": f"{split}-{k}",
                "prompt": [{"role": "user", "content": c.prompt}],
                "candidates": [{"text": t, "score": s} for t, s in zip(c.completions, c.scores, strict=True)],
                "source": "world:text/R1",
            }
            for k, c in enumerate(self.candidates(n_prompts, split=split))
        )
        rows = _with_tie_share(mined.rows, tie_share, random.Random(f"tie_share {seed}"))
        for row in flipped((row for row in rows if row["label"] == "win"), label_noise, seed):
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
            row["score_chosen"], row["score_rejected"] = row["score_rejected"], row["score_chosen"]
        return rows

    def expected_reward(
        self,
        model: Any,
        tokenizer: Any,
        n_prompts: int = 200,
        samples_per_prompt: int = 4,
        temperature: float = 1.0,
        *,
        split: Split = "test",
        seed: int = 0,
        progress: bool = False,
    ) -> Estimate:
        """Mean exact score of a model's samples on `prompts(n_prompts, split)`, with a 95 % interval.

        The interval covers the choice of prompts and samples: 1.96 standard errors of the prompts' mean scores.

        Args:
            model: a causal language model, on any device; left in the mode it is in.
            tokenizer: its tokenizer, with a chat template.
            n_prompts: at least 2.
            samples_per_prompt: completions a prompt.
            temperature: of the softmax; 0 is greedy.
            split: "test" or "train".
            seed: of the sampling. Two models under one seed see the same prompts.
            progress: show a bar if standard error is a terminal.
        """
        if n_prompts < 2:
            raise ValueError(f"an interval needs n_prompts of at least 2; given {n_prompts}")
        from prefopt.worlds.text import model as text_model

        prompts = self.prompts(n_prompts, split)
        sampled = text_model.sample_completions(
            model,
            tokenizer,
            prompts,
            samples_per_prompt if temperature > 0 else 1,
            temperature=temperature,
            max_new_tokens=self.max_new_tokens,
            seed=seed_of(f"evaluation {seed}"),
            progress=progress,
        )
        means = [
            math.fsum(self.verify(prompt, c) for c in completions) / len(completions)
            for prompt, completions in zip(prompts, sampled, strict=True)
        ]
        mean = math.fsum(means) / len(means)
        variance = math.fsum((x - mean) ** 2 for x in means) / (len(means) - 1)
        half = 1.96 * math.sqrt(variance / len(means))
        return Estimate(mean, mean - half, mean + half)


def _with_tie_share(
    rows: list[dict[str, Any]], share: float | None, rng: random.Random
) -> list[dict[str, Any]]:
    """The rows, in order, less those left out at random to make `share` of them ties."""
    if share is None:
        return rows
    wins = [k for k, row in enumerate(rows) if row["label"] == "win"]
    ties = [k for k, row in enumerate(rows) if row["label"] == "tie"]
    rng.shuffle(wins)
    rng.shuffle(ties)
    if len(ties) * (1 - share) > share * len(wins):
        ties = ties[: round(share / (1 - share) * len(wins))]
    else:
        wins = wins[: round((1 - share) / share * len(ties))] if share > 0 else wins
    kept = {*wins, *ties}
    return [row for k, row in enumerate(rows) if k in kept]
