"""The first comparison of a run as its report shows it: both sides, and what they share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from prefopt.comparisons import Example, Item
from prefopt.modalities.base import Context
from prefopt.modalities.control.store import CachedControls
from prefopt.modalities.image.offline import as_seen, first_pair


def first_comparison(context: Context, store: CachedControls, example: Example) -> dict[str, Any]:
    """Pictures of the first example, written now; see `image.offline.first_pair`.

    Args:
        context: of the run.
        store: holds the control images of the example.
        example: two conditions of one image, two images under one condition, or one image under one.

    Returns:
        The record: `sides` show conditions if they differ in them, else images; `shared` is the image or the condition that
        they have in common, as `name` and `image` (a path). `made` is true where losing conditions are made while training.
    """
    made = context.config.losing_condition == "online"
    first = example.items[0]
    controls = {item.condition["control"].digest for item in example.items}
    of_conditions = made or len(controls) > 1

    def condition(item: Item) -> Tensor:
        return store.controls([item.condition["control"].digest])[0]

    def image(item: Item) -> Tensor:
        return as_seen(store, item)

    shown, common, name = (condition, image, "image") if of_conditions else (image, condition, "condition")
    found = first_pair(context, example, shown)
    if made:  # the row has no other side yet
        found["sides"] = [side for side in found["sides"] if side["name"] == "chosen"]
    shared = {"name": name, "image": context.record.picture(f"first-{name}", common(first))}
    return {**found, "shared": shared, "made": made}
