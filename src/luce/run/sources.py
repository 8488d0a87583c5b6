"""The sources that a run is asked about: read as it was trained, and which of their rows it saw."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luce.data import Dataset, Schema, load_dataset, three_way
from luce.data.kinds import NAMES, existing, tables_in
from luce.data.streams.scan import Scan, name_of
from luce.errors import ArgumentError, DataError
from luce.request import Request
from luce.streaming import Held, check_table, is_large, some_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luce.data.dataset import Features
    from luce.report import Learnt
    from luce.report.subject import Role

__all__ = ["Sources"]


@dataclass(frozen=True)
class Sources:
    """What a run knows of sources.

    Attributes
    ----------
    config : dict
        Of the run: what it was asked for, and what it was trained on.
    schema : Schema
    """

    config: dict[str, Any]
    schema: Schema

    def names_in(self, source: Any) -> tuple[str | None, str | None]:
        """Return the target and features of a source, as training named them.

        A labels' file belongs to the very source; the arrays' names to every NPZ file.
        """
        asked = self.request
        archives = all(str(each).lower().endswith(".npz") for each in (source, asked.source))
        if archives or asked.agrees("source", str(source)):
            return asked.target, asked.features
        return self.schema.target, None

    def streams(self, source: Any) -> bool:
        """Say whether a source is to be scored block by block.

        That is any table where the run was trained on a stream: which rows were held out, only a
        stream's reader knows. The source of a run that was trained in memory is read so.
        """
        if isinstance(source, Scan):
            return True
        if not isinstance(source, str | Path) or source in NAMES:
            return False
        if self.config["data"].get("stream"):
            return bool(tables_in(existing(source)))
        return not self.request.agrees("source", str(source)) and is_large(source) is not None

    def loaded(self, source: Any, target: str | None, features: str | None) -> Dataset:
        """Return a source, whose labels may be absent or of other classes."""
        names = self.names_in(source)
        return load_dataset(
            source,
            target=target or names[0],
            features=features or names[1],
            # Labels of other classes are the report's to tell, not an error.
            schema=self.schema if self.schema.several else replace(self.schema, classes=None),
        )

    def some(self, source: Any, target: str | None = None) -> tuple[Dataset, str, Role]:
        """Return some rows of a stream, which they are in words, and what for."""
        path = source.source if isinstance(source, Scan) else source
        name, target = name_of(path), target or self.names_in(path)[0]
        schema: Any = self.schema  # a stream's are of tables
        some, total, own = some_rows(name, path, target, schema, self.held)
        words = f"{len(some):,} of the {total:,} rows of {name}"
        if not own:
            return some, words, "source"
        role: Role = "test" if self.config["split"]["test_size"] else "validation"
        return some, f"{words} that training held out", role

    def held_out(self, dataset: Dataset) -> tuple[Dataset, str]:
        """Return the rows of a dataset that training has not seen, and what they are in words."""
        rows, words, role, _ = self.unseen(dataset)
        if role == "validation" or rows is None:
            raise DataError(
                f"the run was trained on all of {dataset.name} and held nothing out: its score "
                "there would say nothing. Give other data, or train with --test-size 0.2."
            )
        return rows, words

    def unseen(self, dataset: Dataset) -> tuple[Dataset | None, str, Role, NDArray[np.intp] | None]:
        """Return rows that the weights were not fitted on: which, in words, what for, and where."""
        trained_on = self.config["data"]
        own = dataset.fingerprint() == trained_on["fingerprint"]
        if dataset.test is not None:
            words = f"the {len(dataset.test):,} test rows of {dataset.name}"
            # Runs of earlier versions did not record which test rows they had.
            if own and "test_fingerprint" in trained_on:
                own = dataset.test.fingerprint() == trained_on["test_fingerprint"]
            return dataset.test, words, "test" if own else "source", None
        if not own:
            return dataset, f"all {len(dataset):,} rows of {dataset.name}", "source", None
        if dataset.labels is None:
            return None, "no rows: without labels there is nothing to score", "validation", None
        _, validation, held_out = three_way(dataset.labels, **self.config["split"])
        if len(held_out):
            words = f"the {len(held_out):,} rows of {dataset.name} that training held out"
            return dataset.take(held_out), words, "test", held_out
        if len(validation):
            words = f"the {len(validation):,} validation rows of {dataset.name}"
            return dataset.take(validation), words, "validation", validation
        return None, f"no rows: training saw all of {dataset.name}", "validation", None

    def to_compare(self, source: Any) -> tuple[Features | None, str]:
        """Return raw rows that training has not seen, and what they are or why there are none."""
        if source is None:
            try:
                request = self.located()
                source = request.test or request.source
                if source is None:
                    return None, "the run was trained on data in memory"
                if self.streams(source):
                    some, words, _ = self.some(source)
                    return some.features, words
                dataset = self.loaded(source, None, None)
            except DataError as error:
                return None, str(error)
        elif self.streams(source):
            some, words, _ = self.some(source)
            return some.features, words
        else:
            dataset = self.loaded(source, None, None)
        rows, words, _, _ = self.unseen(dataset)
        return (None if rows is None else rows.features), words

    def learnt(self, dataset: Dataset) -> Learnt | None:
        """Return the rows that the weights were fitted to, if the dataset has them."""
        from luce.report import Learnt

        own = dataset.fingerprint() == self.config["data"]["fingerprint"]
        if not own or dataset.labels is None or self.schema.several is not None:
            return None
        rows = three_way(dataset.labels, **self.config["split"])[0]
        return Learnt(dataset.take(rows), rows)

    def check_spread(self, source: Any) -> None:
        """Raise ArgumentError unless an engine's workers can say which rows of a source count."""
        check_table(source, "engine")
        own = self.request.agrees("source", str(source))
        if own and not self.config["data"].get("stream"):
            raise ArgumentError(
                f"engine: {source} is what the run was trained on, in memory, and workers cannot "
                "tell which of its rows were held out. Leave engine out, or give other rows."
            )

    @property
    def held(self) -> Held:
        """What says which rows of a stream training held out."""
        data = self.config["data"]
        return Held(data["fingerprint"], self.config["split"], data.get("files", {}))

    @property
    def request(self) -> Request:
        """What training was asked for, with the paths as they are found from here, if they are."""
        request = Request.from_json(self.config["request"])
        with suppress(DataError):
            return request.located(self.config.get("directory"))
        return request

    def located(self) -> Request:
        """Return what training was asked for, with its paths as they are found from here."""
        return Request.from_json(self.config["request"]).located(self.config.get("directory"))
