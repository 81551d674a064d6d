"""A checkpoint whose generation configuration asks for everything that changes what is drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

ASKED: dict[str, Any] = {
    "do_sample": True, "temperature": 0.3, "top_k": 3, "top_p": 0.5, "min_p": 0.2, "typical_p": 0.5,
    "epsilon_cutoff": 0.05, "eta_cutoff": 0.05, "top_h": 0.5, "repetition_penalty": 3.0, "no_repeat_ngram_size": 1,
    "suppress_tokens": [3, 4, 5, 20, 21, 22], "begin_suppress_tokens": [6, 7, 8, 23, 24, 25],
    "bad_words_ids": [[9], [26, 27]], "sequence_bias": [[[30], 5.0]], "forced_eos_token_id": 2,
    "min_new_tokens": 6, "exponential_decay_length_penalty": [1, 3.0], "remove_invalid_values": True,
    "renormalize_logits": True, "max_new_tokens": 2, "num_return_sequences": 3, "stop_strings": ["fig"],
    "prompt_lookup_num_tokens": 3, "guidance_scale": 2.0, "use_cache": False,
    "watermarking_config": {"greenlist_ratio": 0.25, "bias": 8.0, "hashing_key": 15485863,
                            "seeding_scheme": "lefthash", "context_width": 1},
    "a_key_of_the_next_version": 7,
}  # fmt: skip


def loud(model: Path, folder: Path, **more: Any) -> Path:
    """A copy of a model with them; its own end-of-sequence tokens stay."""
    shutil.copytree(model, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | ASKED | more))
    return folder
