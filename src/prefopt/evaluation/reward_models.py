"""Reward models of text: sequence classifiers of transformers with one output, the score of an answer to a prompt.

A score is what transformers computes of the row alone: batches are padded on the right, behind every row's end, with a
token that no row holds where the model names none, so that neither the company of a row nor its padding matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefopt.evaluation.rewards import TextReward
from prefopt.generation.base import Prompt
from prefopt.models.sources import SEQUENCE, check_causal, config_values, file_of, whole_model
from prefopt.models.tokenizers import load_tokenizer

REWARD_MODEL = "reward:"
"""How a reward model is named: reward:DIR, or reward:HUB_ID."""


class RewardModel(TextReward):
    """An `AutoModelForSequenceClassification` with one label, its tokenizer and chat template; loaded when first asked.

    Args:
        source: folder or hub id. Nothing but its configuration is read before the first score.
        batch_size: rows at once.

    Raises:
        FileNotFoundError: no model there.
        ValueError: another kind of model, or one with several labels; says which.

    Example:
        >>> judge = RewardModel("my-reward-model")                                        # doctest: +SKIP
        >>> judge.scores([[{"role": "user", "content": "2 + 2?"}]], ["4"])                # doctest: +SKIP
        [3.25]
    """

    def __init__(self, source: str, batch_size: int = 16) -> None:
        check_reward_model(source)
        self.source, self.batch_size = source, batch_size
        self.name = REWARD_MODEL + source
        self.model: Any = None
        self.tokenizer: Any = None
        self._positions: int | None = None
        self._own_padding: int | None = None

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[str], ended: Sequence[bool] | None = None
    ) -> list[float]:
        """The model's output for each answer to its prompt, higher is better.

        A conversation goes through the model's own chat template, with the answer as the assistant's turn; of a plain
        prompt, prompt and answer are joined as they are, the end-of-sequence token behind them (where TRL's RewardTrainer,
        1.16, puts it in training), and the tokenizer adds what it adds to any text.

        Args:
            prompts: texts or messages.
            answers: as many.
            ended: whether each came to its end; a plain answer that was cut gets no token behind it. None: all did.

        Raises:
            ValueError: conversations without a chat template, a row longer than the model's positions, or a score that
                is no number; names the prompt.
            OSError: weights that are no safetensors.
        """
        import torch

        self._load()
        ends = [True] * len(answers) if ended is None else ended
        rows = [self._ids(*row) for row in zip(prompts, answers, ends, strict=True)]
        # rows of like length together; each goes back to its place
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        found: dict[int, float] = {}
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            # its own precision, whatever the run that asks computes in
            with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
                logits_B1 = self._logits([rows[n] for n in places])
            found.update(zip(places, logits_B1[:, 0].float().tolist(), strict=True))
        for n, value in found.items():
            if not abs(value) < float("inf"):
                raise ValueError(
                    f"{self.name} gives the score {value} to an answer to {str(prompts[n])[:60]!r}"
                )
        return [found[n] for n in range(len(rows))]

    def _logits(self, rows: Sequence[Sequence[int]]) -> Any:
        """(B, 1) of rows of token ids."""
        import torch

        padding = self._padding(rows)
        ids_BT = torch.full((len(rows), max(map(len, rows))), padding)
        mask_BT = torch.zeros_like(ids_BT)
        for n, ids in enumerate(rows):
            ids_BT[n, : len(ids)] = torch.tensor(list(ids))
            mask_BT[n, : len(ids)] = 1
        device = next(self.model.parameters()).device
        return self.model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device)).logits

    def _padding(self, rows: Sequence[Sequence[int]]) -> int:
        """The model's padding, by which it finds where a row ends; where it has none, an id that no row holds."""
        if self._own_padding is not None:
            return self._own_padding
        text = self.model.config.get_text_config()
        used = {token for ids in rows for token in ids}
        unused = next(n for n in range(text.vocab_size) if n not in used)
        for config in (self.model.config, text):
            config.pad_token_id = unused
        return unused

    def _ids(self, prompt: Prompt, answer: str, ended: bool) -> list[int]:
        if isinstance(prompt, str):
            eos = self.tokenizer.eos_token or ""
            end = eos if ended and not answer.endswith(eos) else ""
            ids = self.tokenizer(prompt + answer + end)["input_ids"]
        else:
            if not self.tokenizer.chat_template:
                raise ValueError(
                    f"{self.name} is asked about a conversation, and its tokenizer has no chat template: set "
                    "tokenizer.chat_template to the one that it was trained with, and save it with the model"
                )
            said = [*prompt, {"role": "assistant", "content": answer}]
            text = self.tokenizer.apply_chat_template(said, tokenize=False)
            # the template writes what begins a text, too
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids or (self._positions is not None and len(ids) > self._positions):
            raise ValueError(
                f"prompt and answer have {len(ids)} tokens for {self.name}, which has {self._positions} positions; needed at "
                f"least 1 and no more than that: leave long prompts out or lower response_tokens (prompt: {str(prompt)[:60]!r})"
            )
        return list(ids)

    def _load(self) -> None:
        if self.model is not None:
            return
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers import logging as transformers_logging

        from prefopt.models.dropout import disable_dropout
        from prefopt.models.loading_report import load_whole
        from prefopt.models.positions import positions_of

        transformers_logging.disable_progress_bar()
        self.tokenizer = load_tokenizer(self.source)
        model: Any = load_whole(
            AutoModelForSequenceClassification, self.source, dtype="auto", trust_remote_code=False
        )
        disable_dropout(model)
        model.requires_grad_(False).eval()
        self._own_padding = model.config.get_text_config().pad_token_id
        self._positions = positions_of(self.source)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu")


def check_reward_model(source: str) -> None:
    """Fail early where a source is no reward model that can be loaded here; reads its configuration only.

    Raises:
        FileNotFoundError: no model there.
        ValueError: a causal language model, several labels, an adapter, or a class that transformers does not ship.
    """
    needed = (
        "needed a sequence classifier with one label (an AutoModelForSequenceClassification saved by save_pretrained, as "
        "TRL's RewardTrainer leaves it)"
    )
    if file_of(source, "adapter_config.json") is not None:
        raise ValueError(
            f"the reward model {source} is an adapter of {whole_model(source)}; {needed}: merge it first "
            "(model.merge_and_unload()) and save model and tokenizer"
        )
    check_causal(source, loader=SEQUENCE)
    values = config_values(source)
    kinds = values.get("architectures") or []
    if values and not any("ForSequenceClassification" in kind for kind in kinds):
        raise ValueError(
            f"{source} holds a {', '.join(kinds) or values.get('model_type')}, which gives no score to a text; {needed}"
        )
    if not values:  # a hub id that cannot be reached: loading says why
        return
    from transformers import AutoConfig

    labels = AutoConfig.from_pretrained(source, trust_remote_code=False).num_labels
    if labels != 1:
        raise ValueError(f"the classifier {source} has {labels} labels; {needed}")
