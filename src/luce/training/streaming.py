"""A stream → encoded rows on the disk, as a training takes them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from luce import models
from luce.data.streams.files import known_by
from luce.data.streams.scan import scan
from luce.errors import ArgumentError, DataError
from luce.models import MODELS
from luce.request import Request
from luce.streaming import check_table, is_large, most_scored, sample_of

if TYPE_CHECKING:
    from pathlib import Path

    from luce.data.blocks import Part
    from luce.data.schema import Schema
    from luce.data.streams.encoding import Streamed
    from luce.progress import Display
    from luce.run import Run
    from luce.training.candidates import Examples

__all__ = ["Stream", "prepare_stream", "streamed_request"]

MOST_VALIDATED_CELLS = 2**24
"""Of the validation rows that are in memory at once, the most numbers: 64 MiB."""

MOST_VALIDATED = 2**17

FEWEST_VALIDATED = 2_000


def streamed_request(source: Any, request: Request, display: Display) -> Request:
    """Return the request, with `stream` where the source is to be read as a stream.

    Raises
    ------
    ArgumentError
        If that is asked of what is no table in files, or of a model that cannot learn from one.
    """
    found = None if request.stream else is_large(source)
    if not request.stream and found is None:
        return request
    if request.stream:
        check_table(source)
        display.say("note: read as a stream, as asked: rows are encoded on the disk.")
    elif found is not None:
        needed, free = found
        display.say(
            f"note: read as a stream: in memory it would take about {needed / 1e9:,.1f} GB, and "
            f"{free / 1e9:,.1f} GB are free."
        )
    if request.test is not None:
        raise ArgumentError(
            "test: separate test rows are not read beside a stream yet. Leave test out, and score "
            "them afterwards: luce evaluate RUN SOURCE."
        )
    if request.model == "auto":
        display.say(
            "note: of a stream, auto trains linear alone; name another model to train that."
        )
        request = replace(request, model="linear")
    # A stream's rows are numbers, however many.
    able = [name for name, kind in MODELS.items() if kind.takes_parts and kind.suits((1,))]
    if request.model not in able:
        raise ArgumentError(
            f"model={request.model!r} does not learn from a stream; {' and '.join(able)} can. "
            "Choose one, or take fewer rows."
        )
    models.check_options(request.options, [request.model])
    return replace(request, stream=True)


@dataclass(frozen=True)
class Stream:
    """What `luce.training.prepare.Prepared` is, of rows on the disk.

    Attributes
    ----------
    streamed : Streamed
        The encoded rows, and the schema.
    split : dict
        Shares of validation and test rows, and the seed: as `luce.data.streams.dealing` takes them.
    """

    streamed: Streamed
    split: dict[str, Any]
    folds: None = None

    @property
    def schema(self) -> Schema:
        """Fitted on the training rows; it knows the classes."""
        return self.streamed.schema

    @property
    def classes(self) -> list[Any]:
        """Sorted."""
        return list(self.schema.classes or [])

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that have rows."""
        found = {name: self.streamed.store.part(name) for name in self.streamed.rows}
        return {name: part for name, part in found.items() if part.shape[0]}

    @cached_property
    def encoded(self) -> dict[str, Examples]:
        """The training rows, a part of a store that has its labels; validation rows in memory."""
        found: dict[str, Any] = {"train": (self.parts["train"], None)}
        if "validation" in self.parts:
            found["validation"] = self.validation
        return found

    @property
    def held_out(self) -> Part | None:
        """All validation rows, where `validation` are some of them."""
        part = self.parts.get("validation")
        return None if part is None or part.shape[0] == len(self.validation[1]) else part

    @cached_property
    def validation(self) -> Examples:
        """Some validation rows: all, or as many as the seed draws."""
        wide = max(self.schema.input_shape[0], len(self.classes))
        most = max(FEWEST_VALIDATED, min(MOST_VALIDATED, MOST_VALIDATED_CELLS // wide))
        return sample_of(self.parts["validation"], most, self.split["seed"])

    @property
    def judged_rows(self) -> Any:
        """The encoded rows that candidates are judged by; None if there are none."""
        return self.validation[0] if "validation" in self.parts else None

    def training_sample(self, most: int, seed: int) -> Examples:
        """Return some training rows that the seed draws."""
        return sample_of(self.parts["train"], most, seed)

    def test(self) -> Examples:
        """Return the test rows, or as many as are scored at once."""
        wide = max(self.schema.input_shape[0], len(self.classes))
        return sample_of(self.parts["test"], most_scored(wide), self.split["seed"])

    def forget(self) -> None:
        """Let go of the rows that are in memory."""
        for cached in ("encoded", "validation"):
            self.__dict__.pop(cached, None)

    def summary(self) -> dict[str, Any]:
        """Return what config.json says of the data."""
        return {
            "name": self.streamed.name,
            "stream": True,
            "fingerprint": self.streamed.fingerprint,
            "files": {each.name: known_by(each) for each in self.streamed.files},
            "test_fingerprint": None,
            "rows": self.streamed.rows,
            "input_shape": list(self.schema.input_shape),
            "classes": len(self.classes),
        }

    def save_report(self, run: Run, path: Path) -> None:
        """Write the run's report: on rows that were held out, as they were in the files."""
        found = self.streamed.held_out()
        if found is None:
            raise DataError(
                "of a stream it is made of rows that were held out, and there are none. Give other "
                "rows: luce report RUN SOURCE."
            )
        frame, total = found
        run.report_on_some(frame, total, self.streamed.name).save(path)


def prepare_stream(
    source: Any, request: Request, display: Display, cache_size: int | None
) -> Stream:
    """Encode a source's rows on the disk, unless they are there.

    Raises
    ------
    DataError
        If the data cannot be used, or the disk has no room.
    """
    split: dict[str, Any] = {
        "validation_size": float(request.validation_size),
        "test_size": float(request.test_size),
        "seed": request.seed,
    }
    found = scan(source, target=request.target, **request.directions)
    since = time.monotonic()
    streamed = found.encoded(
        **split,
        normalise=request.normalise,  # type: ignore[arg-type] # which the request has checked
        drop_rare=request.drop_rare,
        cache_size=cache_size,
        say=lambda line: display.say(f"note: {line}"),
    )
    display.describe(streamed.schema)
    if streamed.found:
        display.say("note: these rows were encoded before; they are used again.")
    else:
        display.say(f"note: read and encoded in {time.monotonic() - since:,.1f} s.")
    display.say_all(f"note: {line}" for line in streamed.notices)
    return Stream(streamed, split)
