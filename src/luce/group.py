"""Process groups: several processes that train one network, each a slice of every batch.

A launcher starts them (torchrun, Spark's TorchDistributor, Ray's TorchTrainer, ...) and says to
each by environment variables which of how many it is: its rank, and the size of the group. What all
must agree on goes through a :class:`Group`; alone, it is a group of one, that asks nobody.

Nothing heavy is imported here, and of PyTorch only once there is a group to join. What ranks tell
each other is JSON and plain numbers: nothing is pickled.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from luce import errors
from luce.errors import DivergenceError, GroupError, LuceError, TrainingStoppedError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["ALONE", "COMMON", "Group", "current", "is_silent", "join", "known", "restarted"]

# How long ranks wait for each other to start; and then for one that works while the others cannot,
# as on encoding a large table. If one has died, the others know it at once.
JOINED_WITHIN, HEARD_WITHIN = timedelta(minutes=10), timedelta(hours=24)

# On an error that all ranks have: rank 0 says it for them.
COMMON = "All ranks of the process group end with this."

# What a launcher says to each process. Some set WORLD_SIZE alone, for purposes of their own.
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Group:
    """The processes that train together, as one of them sees them.

    Every method but for `rank` and `size` is called by all ranks, in the same order: each waits for
    the others.

    Attributes
    ----------
    rank : int
        Which one this is, from 0. Rank 0 alone writes and prints.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> None:
        """Put the sum over all ranks in the tensor's place: to the same bits on each."""
        if self.size > 1:
            import torch.distributed as dist

            with _together():
                here = tensor.to(_device(tensor.device))
                dist.all_reduce(here)
                if here is not tensor:
                    tensor.copy_(here)

    def broadcast(self, tensor: Tensor) -> None:
        """Put rank 0's numbers into the tensor."""
        if self.size > 1:
            import torch.distributed as dist

            with _together():
                here = tensor.to(_device(tensor.device)).contiguous()
                dist.broadcast(here, src=0)
                if here is not tensor:
                    tensor.copy_(here)

    def any(self, asked: bool) -> bool:
        """Say whether it is so on any rank."""
        return any(self.each(asked))

    def each(self, content: Any) -> list[Any]:
        """Return what each rank said, plain data, in the order of the ranks."""
        if self.size == 1:
            return [content]
        import torch

        text = json.dumps(content).encode()
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(text)
        self.sum(lengths)
        starts = [0, *lengths.cumsum(0).tolist()]
        said = torch.zeros(starts[-1], dtype=torch.uint8)
        own = said[starts[self.rank] : starts[self.rank + 1]]
        own.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        self.sum(said)
        whole = said.numpy().tobytes()
        return [json.loads(whole[i:j]) for i, j in pairwise(starts)]

    def told(self, content: Any) -> Any:
        """Return what rank 0 says, plain data; what others say does not count."""
        return self.each(content if self.rank == 0 else None)[0]

    def told_arrays(self, arrays: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]]:
        """Return the arrays by name that rank 0 has; others give None."""
        if self.size == 1:
            return dict(arrays or {})
        import numpy as np
        import torch

        own = {name: np.require(array, requirements="C") for name, array in (arrays or {}).items()}
        found: dict[str, NDArray[Any]] = {}
        for name, dtype, shape in self.told([[n, a.dtype.str, a.shape] for n, a in own.items()]):
            array = np.array(own[name] if self.rank == 0 else np.empty(shape, dtype))
            if array.size:
                self.broadcast(torch.from_numpy(array.reshape(-1).view(np.uint8)))
            found[name] = array
        return found

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Do something on all ranks or on none: if one fails in the block, all raise its error.

        In the block no rank may wait for another.
        """
        if self.size == 1:
            yield
            return
        failure: LuceError | None = None
        try:
            yield
        except LuceError as error:
            failure = error
        said = self.each(None if failure is None else [type(failure).__name__, str(failure)])
        failed = next((rank for rank, each in enumerate(said) if each is not None), None)
        if failed is None:
            return
        name, message = said[failed]
        if failed:
            message = f"rank {failed} of {self.size}: {message}"
        common: LuceError = getattr(errors, name, LuceError)(message)
        common.add_note(COMMON)
        raise common from failure


ALONE = Group()


def current() -> Group:
    """Return PyTorch's process group, if this process is in one; else a group of one."""
    # Loaded with PyTorch: where that is not, nobody can have begun one.
    if "torch.distributed" not in sys.modules:
        return ALONE
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Group(dist.get_rank(), dist.get_world_size())


def join() -> Group:
    """Return the process group that a launcher speaks of, joined; or a group of one.

    Joined once, it is there until the process ends.

    Raises
    ------
    GroupError
        If the other processes cannot be reached.
    """
    if current().size > 1 or _said("WORLD_SIZE") <= 1:
        return current()
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        # Numbers that are on the CPU go another way than those on a GPU.
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(_said("LOCAL_RANK") % torch.cuda.device_count())
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        with _interface():
            store, rank, size = next(rendezvous("env://", timeout=JOINED_WITHIN))
            # torchrun keeps its store when it starts processes again: in it are the addresses of
            # those that were there before, for whom the new ones would wait.
            attempt = PrefixStore(f"luce-{_said('TORCHELASTIC_RESTART_COUNT')}", store)
            dist.init_process_group(
                backend, store=attempt, rank=rank, world_size=size, timeout=HEARD_WITHIN
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise GroupError(
            f"rank {_said('RANK')} of {_said('WORLD_SIZE')} could not join the others at {where} "
            f"within {JOINED_WITHIN.total_seconds():,.0f} s: {_line(error)}. See that all run "
            "and reach that address; if a machine has several network interfaces, name the one to "
            "use: GLOO_SOCKET_IFNAME=eth0."
        ) from error
    atexit.register(_leave)
    return current()


def known() -> Group:
    """Return the group as it is joined, or as the launcher speaks of it: nobody is asked."""
    group = current()
    if group.size > 1 or _said("WORLD_SIZE") <= 1:
        return group
    return Group(_said("RANK"), _said("WORLD_SIZE"))


def is_silent(error: BaseException) -> bool:
    """Say whether this process leaves it to rank 0 to say what went wrong, on all ranks."""
    common = isinstance(error, DivergenceError | TrainingStoppedError)
    alone = isinstance(error, LuceError) and COMMON not in getattr(error, "__notes__", ())
    return known().rank > 0 and (common or not alone)


def restarted() -> bool:
    """Say whether the launcher started this process in the place of one that ended too early."""
    return _said("TORCHELASTIC_RESTART_COUNT") > 0


def _said(variable: str) -> int:
    """Return the number in a launcher's variable; 0 if it does not speak of a group."""
    if not all(name in os.environ for name in VARIABLES):
        return 0
    with suppress(ValueError):
        return int(os.environ.get(variable, "0"))
    return 0


def _leave() -> None:
    import torch.distributed as dist

    with suppress(Exception):
        dist.destroy_process_group()


def _device(device: Any) -> Any:
    """Return where a tensor must be for the group to read it: NCCL alone reads GPUs alone."""
    import torch
    import torch.distributed as dist

    return torch.device("cuda") if dist.get_backend() == "nccl" else device


@contextmanager
def _together() -> Iterator[None]:
    """Say in words that another rank has gone."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, LuceError):
            raise
        raise GroupError(
            f"the process group lost one of its ranks: {_line(error)}. Start all of them again; "
            "with --resume training goes on from what was saved."
        ) from error


@contextmanager
def _interface() -> Iterator[None]:
    """Have gloo use the network interface that leads to the group's address.

    By itself it takes that of the machine's host name, which in many a container is the loopback's,
    where no other machine is (pytorch#15592).
    """
    name = "GLOO_SOCKET_IFNAME"
    found = None if name in os.environ else _leading_to(os.environ["MASTER_ADDR"])
    if found is None:
        yield
        return
    os.environ[name] = found
    try:
        yield
    finally:
        del os.environ[name]


def _leading_to(address: str) -> str | None:
    """Return the name of the interface whose address this machine has towards another."""
    import psutil

    with suppress(OSError):
        family, *_, where = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)  # of UDP: nothing is sent
            own = probe.getsockname()[0]
        for interface, addresses in psutil.net_if_addrs().items():
            if any(each.address.split("%")[0] == own for each in addresses):
                return str(interface)
    return None


def _line(error: BaseException) -> str:
    """Return the first sentence of PyTorch's message, without a place in C++ before it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^]]*\] *", "", line).split(". ")[0].strip().rstrip(".")
