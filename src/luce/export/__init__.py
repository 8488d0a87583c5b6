"""A run as a file that works without Luce: ONNX, PyTorch, one HTML page, PMML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from luce.errors import ArgumentError
from luce.export.result import Exported
from luce.export.subject import Subject
from luce.options import EXPORT, check
from luce.storage import write_whole

__all__ = ["FORMATS", "Exported", "Subject", "export", "format_of"]

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "html": ".html", "pmml": ".pmml"}
"""What a run can be exported to, and how such files end."""


def format_of(path: str | Path | None, to: str | None) -> str:
    """Return the format that is asked for, by its name or by the ending of a file.

    Raises
    ------
    ArgumentError
        If neither says it, or the name is none.
    """
    names = ", ".join(FORMATS)
    if to is not None:
        check("to", to, EXPORT["to"].kind)
        return to
    ending = "" if path is None else Path(path).suffix.lower()
    for name, own in FORMATS.items():
        if ending == own:
            return name
    if path is None:
        raise ArgumentError(f"export needs a format, {names}: to='onnx'.")
    raise ArgumentError(
        f"export: {str(path)!r} ends in none of {', '.join(FORMATS.values())}. Name the file so, "
        f"or give the format, {names}: to='onnx'."
    )


def export(subject: Subject, path: Path, *, to: str, operators: str) -> Exported:
    """Write a run as a file of another kind, once it is known to say what the run says.

    Parameters
    ----------
    subject : Subject
        The run.
    path : Path
        The file; replaced if it exists.
    to : str
        One of `FORMATS`.
    operators : {"onnx", "onnxruntime"}
        Which operators a graph may have.

    Raises
    ------
    ArgumentError
        If the run cannot be said in the format.
    ExportError
        If the file would say something else than the run.
    MissingExtraError
        If what writes the format is not installed.
    RunError
        If the file cannot be written.
    """
    check("operators", operators, EXPORT["operators"].kind)
    if path.is_dir():
        raise ArgumentError(f"export: {path} is a folder. Give the name of a file.")
    if operators != "onnx" and to != "onnx":
        raise ArgumentError(
            f"export: operators says which operators an ONNX graph may have, and {to} has none. "
            "Leave it out."
        )
    if to == "onnx":
        from luce.export.onnx_file import to_onnx

        content, exported = to_onnx(subject, path, operators=operators)
    elif to == "torch":
        from luce.export.torch_file import to_torch

        content, exported = to_torch(subject, path)
    elif to == "pmml":
        from luce.export.pmml_file import to_pmml

        content, exported = to_pmml(subject, path)
    elif to == "html":
        from luce.export.html_file import to_html

        content, exported = to_html(subject, path)
    write_whole(path, content)
    if exported.compared and subject.features is None:
        why = subject.words.rstrip(".")
        note = f"no held-out rows were compared: {why}. Give a source to compare on."
        exported = replace(exported, notes=[*exported.notes, note])
    return exported
