"""The configuration of a run: one typed, strict, flat schema.

Names are TRL's and transformers' where they have one. A YAML file, `key=value` overrides and Python keywords all end
here; a key that is unknown, or that means nothing in this run, is an error that names the nearest one. An objective's own
hyper-parameters (`beta`, `nu`, ...) stand beside the training keys; they are checked against the objective's fields.
"""

from prefopt.config.applying import Kind, applying, needs_of, staged_keys
from prefopt.config.checking import check_keys, nearest
from prefopt.config.errors import ConfigError
from prefopt.config.reading import parse_overrides, read_yaml
from prefopt.config.resolving import resolve
from prefopt.config.schema import ALIASES, FIELD_NAMES, TrainConfig
from prefopt.config.values import TRAINING_ROWS, name_pairs, names
from prefopt.config.writing import dump, run_folder

__all__ = [
    "ALIASES",
    "FIELD_NAMES",
    "TRAINING_ROWS",
    "ConfigError",
    "Kind",
    "TrainConfig",
    "applying",
    "check_keys",
    "dump",
    "name_pairs",
    "names",
    "nearest",
    "needs_of",
    "parse_overrides",
    "read_yaml",
    "resolve",
    "run_folder",
    "staged_keys",
]
