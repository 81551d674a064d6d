"""A vision-language model with its adapter merged, for plain transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.merging import Merged
from prefopt.modalities.text.merge import merge_language
from prefopt.modalities.vision_language.opening import open_images, pictured_likelihood
from prefopt.modalities.vision_language.probes import probes_of
from prefopt.modalities.vision_language.processor import save_processor
from prefopt.models.loading import load_tokenizer
from prefopt.models.sources import PICTURED

COMPARED = "log-probabilities of tokens behind made-up pictures (nats)"


def merge(adapter: Path, folder: Path, dtype: str | None, run: Mapping[str, Any]) -> Merged:
    """Merge; see `prefopt.modalities.merging`."""
    images = open_images(str(adapter))

    @torch.no_grad()
    def measure(model: Any) -> Tensor:
        likelihood = pictured_likelihood(images, None, str(adapter))
        likelihood.adapt(model, "plain")
        items = probes_of(likelihood.prompt_ids, likelihood.expander.feature_tokens, False)[0]
        logp_NL: Tensor = likelihood.score(model, likelihood.plan(items)).logp_NL
        return logp_NL.float()

    merged = merge_language(adapter, folder, dtype, run, PICTURED, measure, COMPARED)
    load_tokenizer(str(adapter)).save_pretrained(folder)
    save_processor(folder, str(adapter))
    return merged
