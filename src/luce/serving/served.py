"""A run as it is served: what it needs of a body, and what is said of its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.data import Schema
from luce.data.tables import TableSchema
from luce.data.wording import listed, shown
from luce.errors import ArgumentError
from luce.manifest import read_config
from luce.predicting import prediction_sets
from luce.run import Run, load_run
from luce.serving.refusals import RefusedError
from luce.serving.rows import Wanted
from luce.storage import sealed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from luce.data.columns import Column
    from luce.evaluation.conformal import PredictionSets
    from luce.evaluation.several import LabelSets
    from luce.serving.limits import Limits
    from luce.serving.rows import Rows

__all__ = ["Runs", "Served", "load"]


@dataclass(frozen=True, eq=False)
class Served:
    """One run, under the name of its folder.

    Attributes
    ----------
    name : str
    run : Run
    sha256 : str
        What its config.json says of itself, which has the digests of all other files.
    wanted : Wanted
        What it needs of a body.
    coverage : float or None
        Of the prediction sets that are answered where a request does not say another.
    """

    name: str
    run: Run
    sha256: str
    wanted: Wanted
    coverage: float | None = None

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of the probabilities."""
        return self.run.classes

    @property
    def schema(self) -> Schema:
        """How rows become numbers."""
        return self.run.schema

    @cached_property
    def thresholds(self) -> NDArray[np.float64] | None:
        """Of several labels at once, from which probability on each is; None of classes."""
        return None if self.schema.several is None else self.run.thresholds

    def labels(self, probabilities: NDArray[Any]) -> list[Any]:
        """Return what is predicted of each row: a class, or the list of the labels that are on."""
        classes = self.classes
        if self.thresholds is None:
            return [classes[k] for k in probabilities.argmax(axis=1).tolist()]
        on = probabilities >= self.thresholds
        return [[classes[k] for k in np.flatnonzero(row)] for row in on]

    def counts(self, probabilities: NDArray[Any]) -> NDArray[np.int64]:
        """Return of how many rows each class, or each label, is predicted."""
        if self.thresholds is None:
            return np.bincount(probabilities.argmax(axis=1), minlength=len(self.classes))
        found: NDArray[np.int64] = (probabilities >= self.thresholds).sum(axis=0)
        return found

    @property
    def columns(self) -> Sequence[Column]:
        """The columns of a table that are encoded; of other data none."""
        return self.schema.used if isinstance(self.schema, TableSchema) else ()

    def sets(self, coverage: float | None) -> PredictionSets | LabelSets | None:
        """Return what makes prediction sets, if any are asked for.

        Raises
        ------
        luce.errors.ArgumentError
            If the coverage is out of range, or the run was trained without validation rows.
        """
        coverage = self.coverage if coverage is None else coverage
        return None if coverage is None else prediction_sets(self.run, coverage)

    def misnamed(self, rows: Rows) -> list[str]:
        """Return what is said of columns that are extra or absent, or raise DataError."""
        if not isinstance(self.schema, TableSchema):
            return []
        return [f"{what}: {rows.count:,}" for what in self.schema.misnamed(rows.names)]

    @cached_property
    def _said(self) -> dict[str, Column]:
        """What is said of values that could not be used, and of which column each is.

        A value that is missing is no mistake: whoever asks knows that. Nor is a rare word where the
        run has learnt from rare words, as "other": it would be said of every second request.
        """
        return {
            what: column
            for column in self.columns
            for what in (*column.handled.unread, *column.handled.unseen)
        }

    def told(self, handled: Mapping[str, int]) -> list[str]:
        """Return a sentence for each column with values that could not be used, and how many."""
        return [f"{what}: {n:,}" for what, n in handled.items() if n and what in self._said]

    def culprits(self, handled: Mapping[str, int]) -> TableSchema | None:
        """Return the schema of the columns with values that could not be used, if there are any."""
        found = {self._said[what].name for what, n in handled.items() if n and what in self._said}
        if not found or not isinstance(self.schema, TableSchema):
            return None
        return replace(self.schema, columns=tuple(c for c in self.schema.used if c.name in found))


class Runs:
    """The runs that are served, by name.

    Parameters
    ----------
    paths : sequence of Path
        Their folders.
    limits : Limits
    coverage : float, optional
        Of the prediction sets of each answer.
    """

    def __init__(
        self, paths: Sequence[Path], limits: Limits, *, coverage: float | None = None
    ) -> None:
        self._paths, self._limits, self._coverage = list(paths), limits, coverage
        self._found: Mapping[str, Served] = {}
        self.reload()

    def reload(self) -> None:
        """Read the runs; if one cannot be read, all stay as they are. See `load`."""
        self._found = load(self._paths, self._limits, coverage=self._coverage)

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return list(self._found)

    @property
    def all(self) -> list[Served]:
        """All of them."""
        return list(self._found.values())

    def asked(self, parameters: Mapping[str, str]) -> Served:
        """Return the run that the parameters of a path say; if none, the only one.

        Raises
        ------
        luce.errors.ArgumentError
            If no run is named and there are several.
        RefusedError
            If there is none of this name, or not in this version.
        """
        found, name = self._found, parameters.get("name")
        if name is None:
            if len(found) > 1:
                raise ArgumentError(
                    f"this server has several runs, {listed(list(found), 20)}. Ask one of them: "
                    f"/v1/models/{next(iter(found))}/predict."
                )
            return next(iter(found.values()))
        if name not in found:
            raise RefusedError(
                404, f"there is no run {shown(name)}; there is {listed(list(found), 20)}."
            )
        version = parameters.get("version")
        if version is not None and version != found[name].sha256[:12]:
            raise RefusedError(
                404, f"{name} is of version {found[name].sha256[:12]}, not {shown(version)}."
            )
        return found[name]


def load(
    paths: Sequence[Path], limits: Limits, *, coverage: float | None = None
) -> dict[str, Served]:
    """Return runs by name.

    Raises
    ------
    luce.errors.ArgumentError
        If two have the same name, or one cannot have the sets that are asked for.
    luce.errors.RunError
        If one cannot be trusted.
    """
    found: dict[str, Served] = {}
    for path in paths:
        name = path.resolve().name
        if name in found:
            raise ArgumentError(
                f"two runs are called {name}: {found[name].run.path} and {path}. Each is served by "
                f"its folder's name; rename one of the folders."
            )
        run = load_run(path)
        while (read := read_config(path)) != {key: run.config.get(key) for key in read}:
            run = load_run(path)  # a training put it in its place in this moment
        sha256 = sealed(read)["sha256"]
        served = Served(name, run, sha256, Wanted.of(run.schema, limits), coverage)
        served.sets(None)  # refused now, not at the first request
        found[name] = served
    return found
