"""Processes that share a training, one GPU each, with the result of one process up to rounding.

Each computes the gradient of its part of every batch, and they add them up; all draw the noise of
the whole batch, so that it does not depend on how many they are.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from emm.devices import take_gpus, visible_gpus
from emm.errors import Interrupted, UserError
from emm.processes import is_member, rank

PATIENCE = timedelta(days=1)  # the leader may wait for a run that another job trains
LOST_SECONDS = 20
STOP_SECONDS = 150  # until processes that were told to stop are killed


@dataclass(frozen=True)
class Team:
    """This process among those that share a training; the one of rank 0 writes and speaks."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process' part of a batch."""
        bounds = [count * rank // self.size for rank in (self.rank, self.rank + 1)]
        return slice(*bounds)

    def add(self, *tensors: Tensor) -> None:
        """Replace each tensor by the sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def follow(self, tensors: Iterator[Tensor]) -> None:
        """Replace each tensor by the leader's."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def agree(self, stop: bool) -> bool:
        """Whether to stop now: all do if one wants to."""
        if self.size == 1:
            return stop
        wanted = torch.tensor([int(stop)])
        distributed.all_reduce(wanted, distributed.ReduceOp.MAX)
        return bool(wanted)


ALONE = Team()


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """Meet the other processes, if there are any, and part in the end.

    By the variables that torchrun sets. A process that fails leaves the parting to its death: the
    others may be gone. One that loses the others lets them say why.
    """
    if not is_member() or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    threading.Thread(target=_follow_launcher, args=(os.getppid(),), daemon=True).start()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size())
    except Interrupted:
        distributed.destroy_process_group()
        raise
    except RuntimeError as error:
        if rank() and (isinstance(error, distributed.DistError) or "peer" in str(error)):
            time.sleep(LOST_SECONDS)  # the launcher ends this process when it has seen the other's
        raise
    distributed.destroy_process_group()


def _follow_launcher(launcher: int) -> None:
    """Stop when the launcher is gone, with which goes its hold on GPUs."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def launch(processes: int, arguments: list[str]) -> None:
    """Run `emm` with these arguments in several processes, as torchrun does; returns when all end.

    They see one GPU each if there are GPUs. Raises Interrupted when they were stopped with their
    state saved; ends with the exit code of the first that failed, which has said why.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _require_gpus(processes)
    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # members have said it
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",  # else a name that nodes need not know
        signals_to_handle="SIGTERM,SIGINT",
        max_restarts=0,
        shutdown_timeout=STOP_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "emm.cli", *arguments)
    except SignalException as error:
        raise Interrupted(f"{processes} processes stopped by {error.sigval.name}") from error
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)


def _require_gpus(processes: int) -> None:
    """UserError where GPUs are fewer than processes, but not none; else take so many."""
    found = visible_gpus()
    if found and len(found) < processes:
        raise UserError(f"--processes {processes}: {len(found)} GPUs are visible")
    if found:
        take_gpus(processes)
