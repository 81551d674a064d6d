"""How several processes part at the end of a run: nobody hangs up while another is still on the line."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from typing import Any

PATIENCE = datetime.timedelta(minutes=5)
_RUNS = itertools.count()


def leave(accelerator: Any) -> None:
    """Take down the process group, once every process has seen the end of the run.

    A barrier alone does not do: the first process through it closes its connections, which the others may still be
    waiting on, and their error would make a failure of a run that has finished. So they tell each other in the store,
    which none of them owns, that they are through; and whatever happens after that is no failure.
    """
    with contextlib.suppress(RuntimeError):  # everything has been written by now; who is gone has finished
        accelerator.wait_for_everyone()
        if accelerator.num_processes > 1:
            everyone_is_through(accelerator.process_index, accelerator.num_processes)
    with contextlib.suppress(RuntimeError):
        accelerator.end_training()


def everyone_is_through(rank: int, processes: int) -> None:
    """Wait until all processes have called this, without using the connections between them."""
    from torch.distributed import distributed_c10d, is_initialized

    if not is_initialized():
        return
    store = distributed_c10d._get_default_store()
    run = next(_RUNS)
    keys = [f"prefopt/through/{run}/{k}" for k in range(processes)]
    store.set(keys[rank], "1")
    store.wait(keys, PATIENCE)
