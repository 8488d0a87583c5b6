"""What a search tries: a grid, every cell of it, or a space of ranges, as a file has them.

::

    {"hidden": [[64], [256]], "learning_rate": [0.001, 0.01]}             a grid
    {"hidden": [[64], [256]], "learning_rate": {"low": 1e-4, "high": 0.1, "log": true}}   a space
    {"linear": {"C": [0.1, 1]}, "mlp": {"dropout": [0, 0.3]}}             of several models

Plain data, checked here before anything heavy is imported, and kept as they are.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from luce.errors import ArgumentError
from luce.models import MODELS, Model, check_options
from luce.models.candidates import options_in_words
from luce.options import Kind, check, received

__all__ = ["Space", "cells", "make_space", "read_space", "value_of"]

Space = dict[str, dict[str, Any]]
"""Model → option → a list of values, or a range: a dict of ``low``, ``high`` and ``log``."""

# Of these, an option that takes numbers takes one.
NUMBERS = (0, 0.5, 1)

RANGE = '{"low": 0.001, "high": 0.1, "log": true}'


def read_space(given: Any, *, called: str) -> Mapping[str, Any]:
    """Return the content of a JSON or TOML file; of a dict, itself.

    Raises
    ------
    ArgumentError
        If there is no such file, or it holds something else.
    """
    if isinstance(given, Mapping):
        return given
    path = Path(given)
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise ArgumentError(f"{called}: cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ArgumentError(
            f"{called}: {path} must be JSON, or TOML where its name ends in .toml: {error}."
        ) from error
    if not isinstance(content, dict):
        raise ArgumentError(
            f"{called}: {path} must hold an object, option → values, got {received(content)}."
        )
    return content


def make_space(
    content: Mapping[str, Any] | None,
    *,
    grid: bool,
    model: str,
    options: Mapping[str, Any],
) -> Space:
    """Check a grid or a space, and return it by model.

    Parameters
    ----------
    content : mapping, or None
        As a file has it: option → values, for each model that has all of these options, or model →
        option → values. None for what each model proposes.
    grid : bool
        Whether every cell is to be run, so that there can be no ranges.
    model : str
        The model that was asked for, or "auto".
    options : mapping
        What was asked for besides, and therefore is not searched.

    Raises
    ------
    ArgumentError
        Naming the option, what was received and what is allowed.
    """
    called = "grid" if grid else "space"
    names = list(MODELS) if model == "auto" else [model]
    if content is None:
        return {
            name: {key: each for key, each in MODELS[name].space.items() if key not in options}
            for name in names
        }
    if not content:
        raise ArgumentError(f"{called}: it names no option. Give option → values.")
    space = _by_model(content, names, called)
    for name, searched in space.items():
        for option, values in searched.items():
            if option in options:
                given = options_in_words({"": options[option]}).strip()
                raise ArgumentError(
                    f"{called}: {option} is also given as {given}. Leave one of the two out."
                )
            _check(f"{called}: {option}", option, values, MODELS[name], grid=grid)
    if grid:
        for name, cell in cells(space):
            fixed = {key: each for key, each in options.items() if key in MODELS[name].options}
            check_options({**fixed, **cell}, [name])
    return space


def _by_model(content: Mapping[str, Any], names: Sequence[str], called: str) -> Space:
    """Return what is searched of each model."""
    if any(key in MODELS for key in content):
        for key, searched in content.items():
            if key not in names:
                where = "none that is trained" if key in MODELS else "no model"
                raise ArgumentError(
                    f"{called}: {key!r} is {where}. Beside a model there can only be models: "
                    f"{', '.join(names)}."
                )
            if not isinstance(searched, Mapping):
                raise ArgumentError(
                    f"{called}: {key} must hold option → values, got {received(searched)}."
                )
            for option in searched:
                _check_option(option, [key], called)
        return {name: dict(searched) for name, searched in content.items()}
    for option in content:
        _check_option(option, names, called)
    found = [name for name in names if all(option in MODELS[name].options for option in content)]
    if not found:
        owners = {
            option: " and ".join(name for name in names if option in MODELS[name].options)
            for option in content
        }
        of = "; ".join(f"{option} is one of {owner}" for option, owner in owners.items())
        raise ArgumentError(
            f"{called}: no model has all of its options: {of}. Give those of each model by "
            'themselves: {"linear": {...}, "mlp": {...}}.'
        )
    return {name: dict(content) for name in found}


def _check_option(option: str, names: Sequence[str], called: str) -> None:
    """Raise ArgumentError unless one of the models has the option."""
    if any(option in MODELS[name].options for name in names):
        return
    owners = [name for name, each in MODELS.items() if option in each.options]
    if owners:
        raise ArgumentError(
            f"{called}: {' and '.join(names)} has no option {option!r}: it is one of "
            f"{' and '.join(owners)}."
        )
    known = sorted({each for name in names for each in MODELS[name].options})
    near = difflib.get_close_matches(option, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Options are: {', '.join(known)}."
    raise ArgumentError(f"{called}: there is no option {option!r}. {hint}")


def _check(called: str, option: str, values: Any, model: Model[Any], *, grid: bool) -> None:
    """Raise ArgumentError unless these are values, or a range, that the model's option may have."""
    kind = model.options[option].kind
    if isinstance(values, Sequence) and not isinstance(values, str):
        if not values:
            raise ArgumentError(f"{called} has an empty list. Give at least one value.")
        for value in values:
            check(called, value_of(value), kind)
        return
    if grid:
        raise ArgumentError(
            f"{called} must be a list of values, got {received(values)}. Ranges are for a space."
        )
    _check_range(called, values, kind)


def _check_range(called: str, values: Any, kind: Kind) -> None:
    """Raise ArgumentError unless this is a range of values that the kind allows."""
    if not any(kind.allows(each) for each in NUMBERS):
        raise ArgumentError(
            f"{called} has no ranges, as it is no number: give a list of values, each "
            f"{kind.words}; got {received(values)}."
        )
    if not isinstance(values, Mapping) or not values.keys() & {"low", "high"}:
        raise ArgumentError(
            f"{called} has no range: give {RANGE}, or a list of values; got {received(values)}."
        )
    if missing := {"low", "high"} - values.keys():
        raise ArgumentError(
            f"{called}: {missing.pop()} is missing: a range is {RANGE}; got {received(values)}."
        )
    if unknown := values.keys() - {"low", "high", "log"}:
        raise ArgumentError(
            f"{called}: a range has low, high and log, got {', '.join(sorted(unknown))}."
        )
    low, high, log = values["low"], values["high"], values.get("log", False)
    for bound in (low, high):
        if (
            isinstance(bound, bool)
            or not isinstance(bound, int | float)
            or not math.isfinite(bound)
        ):
            raise ArgumentError(f"{called}: low and high must be numbers, got {received(bound)}.")
    if not isinstance(log, bool):
        raise ArgumentError(f"{called}: log must be true or false, got {received(log)}.")
    if low > high:
        raise ArgumentError(f"{called}: low must not be above high, got {low} and {high}.")
    if log and low <= 0:
        raise ArgumentError(
            f"{called}: with log, low must be above 0, got {low}. Raise it, or leave log out."
        )
    check(f"{called}: low", low, kind)
    check(f"{called}: high", high, kind)


def value_of(value: Any) -> Any:
    """Return a value as options have it: a tuple where a file can only have a list."""
    return tuple(value) if isinstance(value, list) else value


def cells(space: Space) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the model and the options of each cell of a grid; the last option changes first."""
    for name, searched in space.items():
        for values in itertools.product(*searched.values()):
            yield name, dict(zip(searched, map(value_of, values), strict=True))
