"""Ray: each task is a remote function with retries; what all lanes share is in its object store.

Ray has no limit for a worker that hangs, so a task without a result is given to another.
"""

from __future__ import annotations

import math
import os
import socket
from typing import TYPE_CHECKING, Any, Final, final

import ray
from ray.exceptions import RayError

from luce.engines.computing import compute, outcome, tasks
from luce.engines.reaching import check_speaks, places, words
from luce.engines.waiting import TASK_TIMEOUT, Patience, in_order
from luce.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

__all__ = ["Ray", "connect"]

# A processor has so many tasks of a pass.
_TASKS_OF_A_CORE: Final = 3
_RETRIES: Final = 3


@final
class Ray:
    """Computes lanes as tasks of the Ray cluster that this process is connected to.

    Parameters
    ----------
    owned : bool
        Whether `close` ends the connection.
    task_timeout : float
        Seconds without a result after which tasks are given to other workers.
    """

    def __init__(self, *, owned: bool, task_timeout: float = TASK_TIMEOUT) -> None:
        self.owned, self.patience = owned, Patience(task_timeout)
        self._compute = ray.remote(num_cpus=1, max_retries=_RETRIES)(compute)

    def map(
        self,
        function: Callable[..., tuple[np.ndarray, ...]],
        lanes: Sequence[Any],
        shared: Mapping[str, Any],
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield ``function(lane, **shared)`` for each lane, in their order."""
        cores = int(ray.cluster_resources().get("CPU", 1))
        common = ray.put(dict(shared))
        own = tasks(lanes, _TASKS_OF_A_CORE * cores)

        def start(some: Sequence[Sequence[Any]]) -> list[Any]:
            # Ray ends workers only where their machine's memory is nearly used up.
            return [self._compute.remote(function, each, common, math.inf) for each in some]

        try:
            for done in in_order(own, start, _ended, _give_up, _cancel, self.patience, "ray"):
                yield from outcome(ray.get(done))
        except RayError as error:
            raise BackendError(
                f"engine 'ray' could not finish a pass: {error}. A task was tried "
                f"{_RETRIES + 1} times."
            ) from error

    def close(self) -> None:
        """End the connection, and what it has started."""
        if self.owned:
            ray.shutdown()


def _ended(references: list[Any], seconds: float) -> Sequence[Any]:
    return ray.wait(references, num_returns=1, timeout=seconds)[0]  # type: ignore[no-any-return]


def _give_up(references: list[Any]) -> None:
    for each in references:
        ray.cancel(each, force=True)  # the process ends, and another has its processor


def _cancel(references: list[Any]) -> None:
    for each in references:
        ray.cancel(each)


def connect(address: str | None, timeout: float, task_timeout: float = TASK_TIMEOUT) -> Ray:
    """Connect to a cluster; without an address, to the current one or to one on this machine.

    Raises
    ------
    luce.errors.BackendError
        It did not answer in time, or this process is connected to another.
    """
    if ray.is_initialized():
        if address is not None and not _is_current(address):
            raise BackendError(
                f"engine 'ray' cannot be reached at {address}: this process is connected to Ray "
                "already, and not at that address. Leave the address out to use what is "
                "connected, or call ray.shutdown() first."
            )
        return Ray(owned=False, task_timeout=task_timeout)
    if address is not None:
        _check_speaks(address, timeout)
    # Tasks find what this process imports, as they do with the other engines.
    quiet = {"logging_level": "error", "log_to_driver": False, "configure_logging": True}
    try:
        if address is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
        hint = ""
        if address is not None:  # Ray says only that it could not connect
            hint = (
                " If the cluster asks for a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN as there."
            )
        raise BackendError(
            f"engine 'ray' did not start at {address or 'this machine'}: {words(error)}.{hint}"
        ) from error
    return Ray(owned=True, task_timeout=task_timeout)


def _check_speaks(address: str, timeout: float) -> None:
    """Raise BackendError if what listens says nothing: Ray tries again for more than a minute."""
    # Under TLS only Ray knows the certificates.
    if not places(address) or os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return
    try:
        import grpc
    except ImportError:  # Ray says so where it needs it
        return
    place = address.rpartition("://")[2].partition("/")[0]
    # As Ray's own channels.
    channel = grpc.insecure_channel(place, [("grpc.enable_http_proxy", 0)])
    check_speaks(channel, "ray", address, timeout)


def _is_current(address: str) -> bool:
    """Say whether this process is connected at this address."""
    if address == "auto":
        return True
    if address.startswith("ray://"):
        worker = ray.util.client.ray.get_context().client_worker
        current = f"ray://{getattr(worker, '_conn_str', '')}"
    else:
        current = ray.get_runtime_context().gcs_address
    return _resolved(address) == _resolved(current) != []


def _resolved(address: str) -> list[tuple[str, int]]:
    """Return hosts by number, so that names are equal too."""
    try:
        return [(socket.gethostbyname(host), port) for host, port in places(address)]
    except OSError:
        return places(address)
