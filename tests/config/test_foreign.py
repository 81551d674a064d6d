"""Keys of other tools: what is said of them, all at once."""

from __future__ import annotations

import pytest

from prefopt.config import ALIASES, FIELD_NAMES, ConfigError, resolve
from prefopt.config.foreign import FOREIGN, TOOLS, tool_of
from prefopt.objectives import registry

NEEDED = {"method": "dpo", "model": "m", "data": "d"}


def test_none_of_them_is_a_key_here():
    own = {name for method in registry.names() for name in registry.hyperparameter_names(method)}
    assert not FOREIGN.keys() & (FIELD_NAMES | ALIASES.keys() | own)


def test_sentences_stand_behind_the_key():
    for name, sentence in FOREIGN.items():
        assert sentence[0].islower() or sentence.split("'")[0] in ("Axolotl", "LLaMA-Factory", "TRL"), name
        assert not sentence.endswith("."), name


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("trust_remote_code", "never run"),
        ("deepspeed", "accelerate launch"),
        ("packing", "batch_layout"),
        ("use_liger_kernel", "the same numbers"),
        ("dataset_num_proc", "one process"),
        ("lora_rank", "`lora_r`"),
    ],
)
def test_one_of_them_is_one_sentence(key, words):
    with pytest.raises(ConfigError) as error:
        resolve({**NEEDED, key: True})
    assert str(error.value).startswith(f"{key} is no key here: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_all_of_them_at_once_with_the_way_out():
    with pytest.raises(ConfigError) as error:
        resolve({**NEEDED, "base_model": "m", "micro_batch_size": 2, "deepspeed": "x.json", "betta": 1})
    lines = str(error.value).splitlines()
    assert lines[0].startswith("4 keys mean nothing in this run")
    assert lines[1] == "  base_model: Axolotl's name of `model`"
    assert lines[2] == "  micro_batch_size: Axolotl's name of `per_device_train_batch_size`"
    assert "accelerate launch" in lines[3]
    assert lines[4] == "  betta: unknown; did you mean 'beta'?"
    assert (
        lines[-1]
        == "Is this a configuration of Axolotl? `prefopt migrate FILE` writes it as one of prefopt's"
    )


def test_a_misspelt_key_is_not_taken_for_another_tools():
    with pytest.raises(ConfigError) as error:
        resolve({**NEEDED, "betta": 1})
    assert "prefopt migrate" not in str(error.value)


def test_marks_tell_the_tools_apart():
    for tool, marks in TOOLS.items():
        assert tool_of(marks) == tool
    assert not TOOLS["axolotl"] & TOOLS["llamafactory"]
    assert tool_of(FIELD_NAMES) is None
