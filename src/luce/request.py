"""What a training run is asked for: the arguments of `luce.train` ↔ the request in config.json."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from luce.data.chains import local_end, with_end
from luce.data.downloads import is_address
from luce.data.kinds import NAMES, is_idx
from luce.data.remote import is_remote
from luce.data.targets import COLUMNS, joined_names
from luce.errors import ArgumentError, DataError, RunError
from luce.models import check_options
from luce.options import DISTIL, RUN, check, received
from luce.storage import read_json

__all__ = ["DIRECTIONS", "PRESETS", "Request"]

_SURROGATES = re.compile("[\ud800-\udfff]")

# What may be said of a table, and what it is where nothing is.
DIRECTIONS: dict[str, Any] = {
    "encoding": None,
    "separator": None,
    "decimal": None,
    "several": None,
    "drop": (),
    "keep": (),
    "types": {},
}

# The arguments that are paths, if they are no names of data sets.
FILES = ("source", "test", "teacher")

# Of these, those that the command line takes without a name.
ARGUMENTS = ("source", "teacher")

# Whole recipes by name: the arguments of `luce.train` that they stand for.
PRESETS: dict[str, dict[str, Any]] = {
    # The classic PyTorch tutorial on MNIST, to the letter: all training rows, nothing held out.
    "tutorial": {
        "model": "mlp",
        "normalise": (0.1307, 0.3081),
        "validation_size": 0.0,
        "report_every": 300,
        "hidden": (512, 256, 128, 64),
        "members": 1,
        "bins": 0,
        "activation": "relu",
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.5,
        "l2": 0.0,
        "schedule": "constant",
        "batch_size": 64,
        "epochs": 10,
    },
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a training run is asked for: enough to repeat it.

    `options` are those of the estimator that differ from the model's defaults. `source` is None
    for data that were handed over in memory. With a `teacher`, a run folder, it is asked of
    `luce.distil`.
    """

    source: str | None = None
    target: str | None = None
    features: str | None = None
    test: str | None = None
    image_size: int | tuple[int, int] | None = None
    drop_rare: int = 0
    stream: bool = False
    encoding: str | None = None
    separator: str | None = None
    decimal: str | None = None
    several: str | None = None
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    types: dict[str, str] = field(default_factory=dict)
    model: str = "auto"
    validation_size: float = 0.1
    test_size: float = 0.2
    normalise: str | tuple[float, float] = "standard"
    seed: int = 0
    report_every: int | None = None
    teacher: str | None = None
    temperature: float = 2.0
    alpha: float = 0.9
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what config.json could not say again, before anything is loaded or trained."""
        for name in ("source", "target", "features", "test", "model", "teacher"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "model"):
                raise ArgumentError(f"{name} must be a name or a path, got {received(value)}.")
            # Bytes of the command line that are no UTF-8 come as half of a character each.
            if value is not None and not value.isascii() and _SURROGATES.search(value):
                raise ArgumentError(f"{name} must be text in UTF-8, got {value!r}. Rename it.")
        for name, option in {**RUN, **DISTIL}.items():
            if name != "model":
                check(name, getattr(self, name), option.kind)
        for name, value in self.options.items():
            try:
                json.dumps(value, allow_nan=False)
            except TypeError as error:
                raise ArgumentError(
                    f"{name} must be plain data that config.json can hold, got {received(value)}. "
                    "For a function or a module of your own, fit luce.NeuralClassifier yourself."
                ) from error
            except (ValueError, RecursionError) as error:
                raise ArgumentError(
                    f"{name} must be of finite numbers, got {received(value)}."
                ) from error

    @property
    def directions(self) -> dict[str, Any]:
        """What is said of a table, as `luce.load_dataset` takes it."""
        return {name: getattr(self, name) for name in DIRECTIONS}

    def check(self) -> None:
        """Refuse an unknown model, options that it does not have, and values they cannot be.

        Raises
        ------
        ArgumentError
            Naming the option, what was received and what is allowed.
        """
        check_options(self.options, [self.model])

    @classmethod
    def from_json(cls, content: object) -> Request:
        """Return the request that a config.json holds.

        Raises
        ------
        RunError
            If it holds something else.
        """
        names = {f.name for f in fields(cls)}
        if isinstance(content, dict):
            # Earlier versions had no such arguments.
            content = {"image_size": None, "drop_rare": 0, "stream": False, **DIRECTIONS, **content}
            content = {"teacher": None, "temperature": 2.0, "alpha": 0.9, **content}
        if not isinstance(content, dict) or content.keys() != names:
            raise RunError(f"config.json is damaged: its request must have {sorted(names)}.")
        # JSON has lists where Python has tuples.
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        options = plain["options"]
        if not isinstance(options, dict):
            raise RunError(f"config.json is damaged: its options are {options!r}.")
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        try:
            return cls(**{**plain, "options": options})
        except (ArgumentError, TypeError) as error:
            raise RunError(f"config.json is damaged: its request: {error}") from error

    @classmethod
    def make(
        cls, arguments: Mapping[str, Any], *, preset: str | None, config: str | Path | None
    ) -> Request:
        """Return the request of `train`'s arguments: first config, then preset, then arguments."""
        if preset is not None and preset not in PRESETS:
            raise ArgumentError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
        given = {**PRESETS.get(preset or "", {}), **{k: _plain(v) for k, v in arguments.items()}}
        if isinstance(given.get("target"), tuple):  # a column for each label
            given["target"] = joined_names(given["target"])
            if given.get("several") is None:
                given["several"] = COLUMNS
        own = {f.name for f in fields(cls)} - {"options"}
        options = {k: v for k, v in given.items() if k not in own}
        own_given = {k: v for k, v in given.items() if k in own}
        base = cls()
        if config is not None:
            content = read_json(Path(config))
            asked = cls.from_json(content.get("request"))
            base = asked.located(content.get("directory"), but=own_given.keys())
        return replace(base, **own_given, options={**base.options, **options})

    def located(self, directory: object, *, but: Collection[str] = ()) -> Request:
        """Return the request with its paths as they are found from where we are.

        Parameters
        ----------
        directory : str
            Where its relative paths begin: the current directory of the training. What config.json
            has there, so it may be missing or anything.
        but : collection of str
            The arguments to leave as they are.

        Raises
        ------
        DataError
            If there is no such file there, and none here either.
        """
        if not isinstance(directory, str) or Path(directory) == Path.cwd():
            return self
        names = [*FILES, "target"] if self._labels_are_a_file() else FILES
        paths = {name: getattr(self, name) for name in names if name not in but}
        found: dict[str, Any] = {n: _found(n, path, directory) for n, path in paths.items()}
        return replace(self, **found)

    def resume_command(self, path: Path, command: str = "train") -> str:
        """Return the command that goes on with the run in this folder."""
        words = [command] if self.teacher is None else ["distil", self.teacher]
        words = ["luce", *words, self.source or "SOURCE", "--name", path.name]
        if path.parent != Path("runs"):
            words += ["--out", str(path.parent)]
        return shlex.join([*words, "--resume"])

    def _labels_are_a_file(self) -> bool:
        """Say whether `target` is the path of a file, as beside NPY and IDX, not a column."""
        source = Path(self.source or "")
        return source.suffix.lower() == ".npy" or is_idx(source)

    def agrees(self, name: str, value: object) -> bool:
        """Say whether `value` is what this request has there; a path may be written differently."""
        mine, value = self._value(name), _plain(value)
        if name == "target" and isinstance(value, tuple):
            value = joined_names(value)
        if name in FILES and isinstance(mine, str) and isinstance(value, str):
            mine, value = (_absolute(path) for path in (mine, value))
        return bool(mine == value)

    def _value(self, name: str) -> Any:
        own = name in {f.name for f in fields(self)}
        return getattr(self, name) if own else self.options.get(name)

    def agree(self, arguments: Mapping[str, Any]) -> None:
        """Raise ArgumentError where `arguments` ask for something else than this request."""
        for name, value in arguments.items():
            if not self.agrees(name, value):
                raise ArgumentError(
                    "--resume goes on with what the run was asked for: "
                    f"{name} was {self._value(name)!r}, got {value!r}. "
                    "Leave it out, or train anew with --overwrite instead of --resume."
                )


def _found(name: str, path: str | None, directory: str) -> str | None:
    """Return a relative path as it is found: in the directory, else where we are."""
    named = name != "teacher" and path in NAMES
    if path is None or named or is_address(path):
        return path
    if is_remote(path):
        end = local_end(path)
        return path if end is None else with_end(path, _found(name, end, directory) or end)
    if Path(path).is_absolute():
        return path
    there = str(Path(directory, path))
    if os.path.lexists(there):
        return there
    if not os.path.lexists(path):
        raise DataError(
            f"{name}: there is no {path} in {directory}, where the run was trained, nor here. "
            f"Say where it is now, with {name.upper() if name in ARGUMENTS else '--' + name}."
        )
    return path


def _absolute(path: str) -> str:
    if is_remote(path):
        end = local_end(path)
        return path if end is None else with_end(path, _absolute(end))
    return os.path.normpath(Path(path).absolute())


def _plain(value: Any) -> Any:
    """Return what JSON will give back: text for a path, Python's numbers for NumPy's, tuples."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return tuple(value)
    return value.item() if getattr(value, "ndim", None) == 0 else value
