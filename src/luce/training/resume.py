"""Whether a training may go on: what was asked for and what the data were, then and now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from luce.errors import ArgumentError, RunError
from luce.folders import resumable
from luce.manifest import read_config
from luce.plan import no_source
from luce.request import Request

__all__ = ["check_data", "ready", "resumed"]


def resumed(path: Path, wanted: Mapping[str, Any], config: Request | None) -> Request:
    """Return the request of the run to resume, if the arguments and --config agree with it.

    Raises
    ------
    ArgumentError
        If they ask for something else.
    RunError
        If there is no such run.
    """
    content = read_config(resumable(path))
    if "search" in content:
        raise ArgumentError(f"{path} is being searched for: go on with luce tune.")
    request = Request.from_json(content["request"]).located(content.get("directory"))
    request.agree(wanted)
    if config is not None and not all(
        request.agrees(f.name, getattr(config, f.name)) for f in fields(Request)
    ):
        raise ArgumentError(
            f"--resume goes on with what {path} was asked for, and --config asks for something "
            "else. Leave --config out, or train anew with --overwrite."
        )
    return request


def ready(source: Any, request: Request, command: str) -> Any:
    """Return what is to be read: the source that was given, or the one that was asked for before.

    Whatever would fail after hours of reading, and needs no data to be known, fails here.

    Raises
    ------
    ArgumentError
        If there is no source, or the device cannot be used here.
    """
    source = request.source if source is None else source
    if source is None:
        raise no_source(command)
    device = request.options.get("device", "auto")
    if device not in ("auto", "cpu"):
        from luce.neural.options import choose_device

        choose_device(device, "float32")
    return source


def check_data(path: Path, data: Mapping[str, Any], test: str | None) -> None:
    """Raise RunError if `data` are not those that the training to resume had.

    Parameters
    ----------
    path : Path
        The run folder.
    data : mapping
        What config.json would say of the data now.
    test : str or None
        The separate test rows, if they were asked for.
    """
    config = read_config(resumable(path))
    before = dict(config["data"])
    if "files" in config:  # finished: the shape is that of the rows that the best model read
        before["input_shape"] = data["input_shape"]
    # What an earlier version did not record cannot be compared.
    changed = {key for key, value in before.items() if data.get(key) != value}
    name = data["name"]
    if changed == {"test_fingerprint"}:
        name = f"the test rows of {name if test is None else test}"
    if changed:
        raise RunError(
            f"{path} was trained on other data than {name} holds now. "
            "Restore them, or train again with --overwrite."
        )
