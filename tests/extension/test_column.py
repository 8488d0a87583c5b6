"""A kind of column from outside: how long a text is, where free text is left out otherwise."""

from dataclasses import dataclass

import numpy as np
import polars as pl

import luce
from luce.data.columns import KINDS, Numeric


@dataclass(frozen=True, kw_only=True)
class Length(Numeric):
    """The number of characters, scaled as numbers are."""

    kind, plural, noun = "length", "lengths", "a text"

    @classmethod
    def infer(cls, seen):
        return cls(name=seen.name, note="free text") if seen.dtype == pl.String else None

    @classmethod
    def read(cls, _, values):
        return values.cast(pl.String, strict=False).str.len_chars()


def test_a_kind_of_column_is_added_from_outside(tmp_path, monkeypatch):
    """It is inferred, fitted, trained on, saved by its name and loaded, and predicts the same."""
    lengths = np.random.default_rng(0).integers(1, 40, 200)
    remarks = [f"{i:03}" + "x" * length for i, length in enumerate(lengths)]
    table = pl.DataFrame({"remark": remarks, "y": np.where(lengths > 20, "long", "short")})
    table.write_csv(tmp_path / "remarks.csv")
    monkeypatch.setitem(KINDS, "length", Length)
    run = luce.train(tmp_path / "remarks.csv", target="y", model="linear", out=tmp_path / "runs")
    again = luce.load_run(run.path)
    assert [column.kind for column in again.schema.columns] == ["length"]
    assert run.metrics["test"]["accuracy"] > 0.9
    np.testing.assert_array_equal(again.predict_proba(table), run.predict_proba(table))
