"""The call itself: shapes, outcomes, masking; and every example in a docstring."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import prefopt.objectives
from objectives import battery
from prefopt import objectives

MODULES = [m.name for m in pkgutil.iter_modules(prefopt.objectives.__path__)]


@pytest.mark.parametrize("module", ["", *(f".{name}" for name in MODULES)])
def test_docstring_examples(module: str) -> None:
    loaded = importlib.import_module(f"prefopt.objectives{module}")
    result = doctest.testmod(loaded, extraglobs={"torch": torch})
    assert result.failed == 0


def test_there_are_docstring_examples() -> None:
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(f"prefopt.objectives.{name}") for name in MODULES]
    assert sum(len(t.examples) for m in modules for t in finder.find(m)) > 15


def test_importing_objectives_imports_nothing_else_of_the_project() -> None:
    import subprocess
    import sys

    code = (
        "import sys, prefopt.objectives; "
        "print([m for m in sys.modules if m.startswith('prefopt.') and not m.startswith(('prefopt.objectives', "
        "'prefopt.version')) or m.split('.')[0] in ('transformers', 'datasets', 'scipy', 'matplotlib')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_shapes_must_agree() -> None:
    dpo = objectives.get("dpo")
    with pytest.raises(ValueError, match="same length"):
        dpo(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="2 rows for 3"):
        dpo(torch.zeros(3), torch.zeros(3), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="boolean vector"):
        dpo(torch.zeros(3), torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="sum to 1"):
        dpo(torch.zeros(1), torch.zeros(1), torch.tensor([[0.5, 0.2, 0.0]]))
    with pytest.raises(ValueError, match="column length_w"):
        objectives.get("ipo")(torch.zeros(3), torch.zeros(3), length_w=torch.ones(2), length_l=torch.ones(3))


def test_a_row_that_does_not_count_cannot_poison_gradients() -> None:
    rho_w = torch.tensor([-1e4, 0.0], requires_grad=True)
    lost, won = [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]
    loss = objectives.get("bpo", beta=1.0)(rho_w, torch.zeros(2), torch.tensor([lost, won]))
    (grad,) = torch.autograd.grad(loss.sum(), rho_w)  # the first row's loss as a win would be infinite
    torch.testing.assert_close(loss.detach(), torch.tensor([-1.0, 0.0]))
    torch.testing.assert_close(grad, torch.tensor([0.0, -0.5]))


def test_prepared_sides_skip_what_is_known() -> None:
    s = battery.random_sides(seed=51)
    rk = objectives.get("dpo_rk")
    ones = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).expand(battery.E, 3)
    torch.testing.assert_close(rk.losses(s, None, {}), rk.losses(s, ones, {}))


def test_sides_that_lack_a_column_say_so() -> None:
    s = objectives.Sides(rho_w=torch.zeros(1), rho_l=torch.zeros(1))
    with pytest.raises(ValueError, match="carry no length"):
        objectives.get("ipo").losses(s, None, {})
