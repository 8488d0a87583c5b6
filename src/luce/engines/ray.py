"""Ray: each task is a remote function with retries; what all lanes share is in its object store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import ray

from luce.engines.computing import compute, outcome, tasks
from luce.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

__all__ = ["PORT", "Ray", "connect"]

PORT: Final = 10001
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
    """

    def __init__(self, *, owned: bool) -> None:
        self.owned = owned
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
        results = [
            self._compute.remote(function, some, common)
            for some in tasks(lanes, _TASKS_OF_A_CORE * cores)
        ]
        results.reverse()
        try:
            while results:
                # Without a reference the object store need not keep it.
                yield from outcome(ray.get(results.pop()))
        except ray.exceptions.RayError as error:
            raise BackendError(
                f"engine 'ray' could not finish a pass: {error}. A task was tried "
                f"{_RETRIES + 1} times."
            ) from error
        finally:
            for left in results:
                ray.cancel(left)

    def close(self) -> None:
        """End the connection, and what it has started."""
        if self.owned:
            ray.shutdown()


def connect(address: str | None, timeout: float) -> Ray:
    """Connect to a cluster; without an address, to the current one or to one on this machine."""
    if ray.is_initialized():
        return Ray(owned=False)
    # Tasks find what this process imports, as they do with the other engines.
    quiet = {"logging_level": "error", "log_to_driver": False, "configure_logging": True}
    try:
        if address is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"engine 'ray' did not answer at {address or 'this machine'} within {timeout:g} s "
            f"({error})."
        ) from error
    return Ray(owned=True)
