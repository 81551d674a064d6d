"""What a run in the picture world costs."""

from __future__ import annotations

import torch
from torch import nn

from prefopt.reproduce.lpo.world import (
    Meter,
)


def test_meter_counts_operations_of_a_sample_and_stands_still_while_measuring():
    layer, meter = nn.Linear(5, 7, bias=False), Meter()
    meter.watch("layer", layer)
    with torch.no_grad():
        layer(torch.zeros(3, 5))  # before it starts: learns the layer's size, counts nothing
    assert meter.cost().rows == {}
    meter.start()
    layer(torch.zeros(4, 5)).sum().backward()
    with torch.no_grad():
        layer(torch.zeros(10, 5))
    meter.stop()
    layer(torch.zeros(100, 5))
    cost = meter.cost()
    assert (cost.rows, cost.trained_rows) == ({"layer": 14}, {"layer": 4})
    assert cost.operations == 2 * 5 * 7 * (14 + 2 * 4)
    layer.requires_grad_(False)
    meter.start()
    layer(torch.zeros(1, 5))  # frozen: nothing goes back
    meter.stop()
    assert meter.cost().trained_rows == {"layer": 4}
