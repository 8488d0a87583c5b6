"""What a training run is asked for: the arguments of `luce.train` ↔ the request in config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from luce.errors import ArgumentError, RunError
from luce.options import MODELS, RUN, check, check_all, received
from luce.storage import read_json

__all__ = ["PRESETS", "Request"]

_SURROGATES = re.compile("[\ud800-\udfff]")

# Whole recipes by name: the arguments of `luce.train` that they stand for.
PRESETS: dict[str, dict[str, Any]] = {
    # The classic PyTorch tutorial on MNIST, to the letter: all training rows, nothing held out.
    "tutorial": {
        "model": "mlp",
        "normalise": (0.1307, 0.3081),
        "validation_size": 0.0,
        "report_every": 300,
        "hidden": (512, 256, 128, 64),
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
    for data that were handed over in memory.
    """

    source: str | None = None
    target: str | None = None
    features: str | None = None
    test: str | None = None
    model: str = "auto"
    validation_size: float = 0.1
    test_size: float = 0.2
    normalise: str | tuple[float, float] = "standard"
    seed: int = 0
    report_every: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what config.json could not say again, before anything is loaded or trained."""
        for name in ("source", "target", "features", "test", "model"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "model"):
                raise ArgumentError(f"{name} must be a name or a path, got {received(value)}.")
            # Bytes of the command line that are no UTF-8 come as half of a character each.
            if value is not None and not value.isascii() and _SURROGATES.search(value):
                raise ArgumentError(f"{name} must be text in UTF-8, got {value!r}. Rename it.")
        for name, option in RUN.items():
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
                    f"{name} must be finite: config.json has to hold it. Got {received(value)}."
                ) from error

    def check(self) -> None:
        """Refuse options that no model has, and values that none of theirs can be.

        Raises
        ------
        ArgumentError
            Naming the option, what was received and what is allowed.
        """
        check("model", self.model, RUN["model"].kind)
        check_all(self.options, list(MODELS) if self.model == "auto" else [self.model])

    @classmethod
    def from_json(cls, content: object) -> Request:
        """Return the request that a config.json holds.

        Raises
        ------
        RunError
            If it holds something else.
        """
        names = {f.name for f in fields(cls)}
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
        own = {f.name for f in fields(cls)} - {"options"}
        options = {k: v for k, v in given.items() if k not in own}
        base = cls() if config is None else cls.from_json(read_json(Path(config)).get("request"))
        own_given = {k: v for k, v in given.items() if k in own}
        return replace(base, **own_given, options={**base.options, **options})

    def agree(self, arguments: Mapping[str, Any]) -> None:
        """Raise ArgumentError where `arguments` ask for something else than this request."""
        for name, value in arguments.items():
            mine = getattr(self, name) if hasattr(self, name) else self.options.get(name)
            if mine != value:
                raise ArgumentError(
                    f"--resume goes on with what the run was asked for: {name} was {mine!r}, "
                    f"got {value!r}. Leave it out, or train anew with --overwrite."
                )


def _plain(value: Any) -> Any:
    """Return a path as text and NumPy's numbers as Python's, which is how JSON will have them."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if getattr(value, "ndim", None) == 0 else value
