"""What a body is, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from luce.serving.files import of_file
from luce.serving.json_rows import of_json, parse
from luce.serving.protocols import of_invocation, of_tensors
from luce.serving.rows import Rows, Wanted

__all__ = ["FORMS", "JSON_FORMS", "form_of", "read"]

FORMS = {
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "image/png": "image",
    "image/jpeg": "image",
}
"""What a body may be, by its content type."""

UNTOLD = ("", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain")
"""Content types that say nothing: curl's default among them. The body is looked at instead."""

BEGINNINGS = {
    b"\x89PNG": "image",
    b"\xff\xd8\xff": "image",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"{": "json",
    b"[": "json",
}
"""How bodies begin."""

JSON_FORMS: Mapping[str, Callable[[Any, Wanted], Rows]] = {
    "json": of_json,
    "tensors": of_tensors,
    "invocation": of_invocation,
}
"""How JSON is read: that of /predict, that of the Open Inference Protocol, that of /invocations."""


def form_of(content_type: str, body: bytes) -> str | None:
    """Return what a body is, or None if nobody can say."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in FORMS:
        return FORMS[kind]
    if kind not in UNTOLD:
        return None
    head = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((form for begun, form in BEGINNINGS.items() if head.startswith(begun)), None)


def read(form: str, body: bytes, wanted: Wanted) -> Rows:
    """Return the rows of a body.

    Parameters
    ----------
    form : {"json", "tensors", "invocation", "csv", "parquet", "arrow", "image"}
    body : bytes
    wanted : Wanted

    Raises
    ------
    luce.errors.DataError
        If it cannot be read, or has other rows than the run needs.
    """
    if form in JSON_FORMS:
        return JSON_FORMS[form](parse(body, nan=form == "invocation"), wanted)
    return of_file(form, body, wanted)
