"""Whether something is at an address and speaks: engines wait for that for minutes, or for ever."""

from __future__ import annotations

import socket
from concurrent.futures import Future, wait
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from luce.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCHEMES", "check_listens", "check_speaks", "places", "silent", "within", "words"]

# How an address begins → whose it is.
SCHEMES: Final = {"tcp": "dask", "tls": "dask", "spark": "spark", "sc": "spark", "ray": "ray"}
# Of addresses that may leave it out.
_PORTS: Final = {"sc": 15002}


def places(address: str) -> list[tuple[str, int]]:
    """Return the hosts of an address with their ports.

    Examples
    --------
    >>> places("spark://a:7077,b:7077")
    [('a', 7077), ('b', 7077)]

    What is no host and port is for the engine alone:

    >>> [places(each) for each in ("local[2,4]", "yarn", "auto", "k8s://https://a:443")]
    [[], [], [], []]
    """
    scheme, mark, rest = address.partition("://")
    if mark and scheme not in SCHEMES:
        return []
    default = _PORTS.get(scheme) if mark else None
    found = []
    for place in (rest if mark else address).partition("/")[0].partition(";")[0].split(","):
        host, _, port = place.rpartition(":")
        if host and port.isdecimal():
            found.append((host.strip("[]"), int(port)))
        elif place and default is not None:
            found.append((place.strip("[]"), default))
    return found


def check_listens(name: str, address: str, timeout: float) -> None:
    """Raise BackendError if nothing listens at any host of the address.

    One of several is enough: of Spark's masters all but one stand by.
    """
    found = places(address)
    failed: Exception | None = None
    for place in found:
        try:
            socket.create_connection(place, timeout / len(found)).close()
        except (OSError, OverflowError, UnicodeError) as error:  # no such port, no such name
            failed = error
        else:
            return
    if failed is not None:
        said = getattr(failed, "strerror", None) or words(failed)
        raise BackendError(
            f"engine {name!r} cannot be reached at {address}: {said}, after a wait of at most "
            f"{timeout:g} s. Is it running, and is the address right?"
        ) from failed


def check_speaks(channel: Any, name: str, address: str, timeout: float) -> None:
    """Raise BackendError if a gRPC channel has no answer in time; close the channel."""
    import grpc

    try:
        grpc.channel_ready_future(channel).result(timeout)
    except grpc.FutureTimeoutError as error:
        raise silent(name, address, timeout) from error
    finally:
        channel.close()


def silent(name: str, address: str, timeout: float) -> BackendError:
    """Return what is raised where something listens and says nothing, or nothing that fits."""
    return BackendError(
        f"engine {name!r} did not answer at {address} within {timeout:g} s, though something "
        f"listens there. Is it {name}, of a version near ours, and is the port right?"
    )


def within(timeout: float, call: Callable[[], Any], discard: Callable[[Any], None]) -> Any:
    """Return what a function returns.

    Parameters
    ----------
    timeout : float
        Seconds that it has.
    call : callable
        Called without arguments in a thread of its own, which does not keep the process alive.
    discard : callable
        Told of what is returned too late; of None if the function failed.

    Raises
    ------
    TimeoutError
        If it takes longer. It then goes on in its thread.
    """
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            answer.set_exception(error)

    def ended_late(answer: Future[Any]) -> None:
        discard(None if answer.exception() else answer.result())

    Thread(target=run, daemon=True).start()
    try:
        ended = wait([answer], timeout).done
    except KeyboardInterrupt:
        answer.add_done_callback(ended_late)
        raise
    if not ended:
        answer.add_done_callback(ended_late)
        raise TimeoutError
    return answer.result()


def words(error: BaseException) -> str:
    """Return what an error says, or what it is: some have no words, such as TimeoutError."""
    return str(error) or type(error).__name__
