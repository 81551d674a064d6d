"""Two processes, replicated or sharded, take the same steps as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import prefopt
from modalities.image.image_runs import QUIET, pair, train
from prefopt.training import leaving
from processes import distributed, free_port, start, words

ROWS = [
    {"prompt": f"Sort: {a} {b}", "chosen": f" {b} {a}", "rejected": " ".join(["", a, b, *[a] * extra])}
    for a in ("red", "blue", "fig", "pear")
    for extra, b in enumerate(("one", "two", "apple"))
] + [{"prompt": "Count: red", "chosen": " red one", "rejected": " one red", "label": "tie"}]
OPTIONS = {
    "max_steps": 4,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "sample_prompts": 0,
    "eval_size": 0,
    "logging_steps": 1,
    "save_steps": 2,
    "bf16": False,
}
SHARDED = """
import sys
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from prefopt.config import parse_overrides, resolve
from prefopt.training.optimizer import make_optimizer
from prefopt.training.run import run

config, hyper = resolve({"method": sys.argv[1]}, parse_overrides(sys.argv[2:]))

def shard(accelerator, model, optimizer):
    mesh = init_device_mesh("cpu", (2,))
    for layer in getattr(getattr(model, "model", None), "layers", []):  # of an image network the whole is one unit
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    fresh = make_optimizer(config, model)
    optimizer.param_groups[:] = fresh.param_groups
    return model, optimizer

run(config, hyper, prepare_model=shard)
"""


def losses(folder: Path, name: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def manifest(folder: Path) -> dict:
    return json.loads((folder / "record" / "manifest.json").read_text())


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def arguments(model: Path, data: Path, folder: Path, **more: object) -> list[str]:
    return words({**OPTIONS, "model": model, "data": data, "output_dir": folder, **more})


def launch(*rest: str, count: int = 2) -> None:
    """As a user would; what else is tried here is forked, which spares three interpreters their imports."""
    # `accelerate launch --cpu --num_processes 2` without MPI starts one process; torch's launcher starts both, and
    # Accelerate finds them in the environment
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(free_port()),
         *rest],
        capture_output=True, text=True, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def single(method: str, model: Path, data: Path, folder: Path, **more: object) -> Path:
    prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})
    return folder


def assert_same_run(one: Path, other: Path) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=1e-5)
    assert losses(one, "grad_norm") == pytest.approx(losses(other, "grad_norm"), rel=1e-4)
    assert losses(one, "num_tokens") == losses(other, "num_tokens")
    assert losses(one, "train_rows_loss") == pytest.approx(losses(other, "train_rows_loss"), rel=1e-5)
    a, b = final(one), final(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("method", "begin"), [("dpo_rk", launch), ("bco", distributed)])
def test_two_processes(method, begin, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    more = {} if method == "dpo_rk" else {"ties": "drop"}
    alone = single(method, tiny_model, data, tmp_path / "alone", per_device_train_batch_size=4, **more)
    given = arguments(tiny_model, data, tmp_path / "two", per_device_train_batch_size=2, **more)
    begin("-m", "prefopt", "train", method, *given)
    assert_same_run(alone, tmp_path / "two")
    assert manifest(tmp_path / "two")["machine"]["processes"] == 2


@pytest.mark.slow
def test_three_processes_part_without_a_quarrel(tiny_model, rows_file, own_cache, tmp_path):
    """Who is through first must not hang up on the others; one folder serves all three."""
    data = rows_file(ROWS)
    for _ in range(4):
        given = arguments(
            tiny_model, data, tmp_path / "three", per_device_train_batch_size=1, overwrite="true"
        )
        launch("-m", "prefopt", "train", "dpo_rk", *given, count=3)
    assert manifest(tmp_path / "three")["machine"]["processes"] == 3


class Parting:
    """An accelerator whose connections break at the end."""

    num_processes, process_index = 3, 1

    def __init__(self) -> None:
        self.asked: list[str] = []

    def wait_for_everyone(self) -> None:
        self.asked.append("wait")
        raise RuntimeError("Connection closed by peer")

    def end_training(self) -> None:
        self.asked.append("end")
        raise RuntimeError("Connection reset by peer")


def test_a_broken_connection_is_no_failure_of_a_run_that_has_finished():
    parting = Parting()
    leaving.leave(parting)
    assert parting.asked == ["wait", "end"]


THROUGH = """
import sys, time
import torch.distributed as dist
from prefopt.training.leaving import everyone_is_through
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=3)
time.sleep(float(sys.argv[3]))
began = time.time()
everyone_is_through(int(sys.argv[2]), 3)
print(began, time.time(), flush=True)
dist.destroy_process_group()
"""


def test_nobody_is_through_before_all_are(tmp_path):
    each = [start("-c", THROUGH, tmp_path / "store", rank, 0.5 * rank) for rank in range(3)]
    done = [running.finish() for running in each]
    assert all(process.returncode == 0 for process in done)
    times = [list(map(float, process.stdout.split())) for process in done]
    last = max(came for came, _ in times)
    assert all(left >= last for _, left in times)


def test_sharded(tiny_model, rows_file, own_cache, tmp_path):
    """FSDP2 through torch itself: Accelerate turns FSDP into plain data parallelism on CPU."""
    data = rows_file(ROWS)
    alone = single("dpo_rk", tiny_model, data, tmp_path / "alone", per_device_train_batch_size=4)
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    given = arguments(tiny_model, data, tmp_path / "two", per_device_train_batch_size=2)
    distributed(script, "dpo_rk", *given)
    assert_same_run(alone, tmp_path / "two")
    assert manifest(tmp_path / "two")["machine"]["processes"] == 2


def test_sharded_images_are_saved_whole(sd, images_file, own_cache, tmp_path):
    """A root unit is whole after the last evaluation, and its state dict sharded again: the pipeline must be neither."""
    data = images_file([pair(n) for n in range(4)])
    given = {**QUIET, "model": sd, "data": data, "max_steps": 2, "learning_rate": 1e-4, "bf16": False}
    alone = train("diffusion_dpo", sd, data, tmp_path / "alone", per_device_train_batch_size=4,
                  **{k: v for k, v in given.items() if k not in ("model", "data")})  # fmt: skip
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    given |= {"output_dir": tmp_path / "two", "per_device_train_batch_size": 2}
    distributed(script, "diffusion_dpo", *words(given))
    assert manifest(tmp_path / "two")["machine"]["processes"] == 2
    name = "unet/diffusion_pytorch_model.safetensors"
    one, other = load_file(alone.model_dir / name), load_file(tmp_path / "two" / "model" / name)
    start = load_file(sd / name)
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(other[key], one[key], rtol=1e-3, atol=2e-5)
    assert any(not torch.equal(one[key], start[key]) for key in one)
