"""Which pairs to label first: the first ones, random ones, or those whose prompts lie far from each other."""

from __future__ import annotations

import random
from collections.abc import Sequence

from prefopt.comparisons import Example
from prefopt.config import TrainConfig
from prefopt.sources.annotation import farthest_points
from prefopt.stages.answers import Answers


def choose_seeds(
    config: TrainConfig, examples: Sequence[Example], answers: Answers
) -> tuple[list[Example], list[Example]]:
    """Examples whose labels are used, as `seed_selection` says, and the others in their order.

    Raises:
        ValueError: a prompt without tokens.
    """
    count = min(config.seed_pairs, len(examples))
    if config.seed_selection == "first" or count == len(examples):
        return list(examples[:count]), list(examples[count:])
    if config.seed_selection == "random":
        chosen = random.Random(config.seed).sample(range(len(examples)), count)
    else:
        chosen = farthest_points(answers.prompt_embeddings(config, examples), count).tolist()
    others = set(range(len(examples))) - set(chosen)
    return [examples[k] for k in chosen], [examples[k] for k in sorted(others)]
