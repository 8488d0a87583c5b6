"""The bytes of a CSV → blocks of string columns; what is found out about how it is written.

Polars parses a block where it is sure to agree with Python's csv module. Any other block goes
through that module, which knows the line of a row that is ragged. The columns stay strings; what
they mean is the schema's business.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from luce.data.opening import reading
from luce.data.wording import counted, listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedIOBase

__all__ = ["Dialect", "csv_blocks", "pieces_of", "repeated"]

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""What a file may begin with to say its encoding; UTF-32's begins with UTF-16's."""

WINDOWS = "cp1252"
"""What text is, in practice, that is neither UTF-8 nor says what it is; Latin-1 is a part of it."""

SEPARATORS = (",", ";", "\t", "|")

NO_TEXT = {
    b"\x1f\x8b": ("packed with gzip", ".csv.gz"),
    b"(\xb5/\xfd": ("packed with Zstandard", ".csv.zst"),
    b"PK\x03\x04": ("a workbook or an archive", ".xlsx"),
    b"PAR1": ("Parquet", ".parquet"),
}
"""What begins so is no CSV; what it is, and how the name of such a file ends."""

BLOCK = 8 * 2**20
"""Bytes that are parsed at once."""

LONGEST_LINE = 64 * 2**20
"""Bytes that a line may have."""

QUOTE, LINE_FEED, RETURN = b'"\n\r'

SAMPLE_ROWS = 50
"""Rows at the head that say what separates the columns."""


@dataclass
class Dialect:
    """How a CSV is written: what is asked for, and once it is read, what was found.

    Attributes
    ----------
    encoding, separator : str or None
        What the user says that it is; None where it is to be found out.
    fallback : str
        The encoding of text that is not UTF-8.
    prefer : str or None
        The separator to take if the header has it.
    found_encoding, found_separator : str or None
        What it was read as. ASCII text is UTF-8.
    """

    encoding: str | None = None
    separator: str | None = None
    fallback: str = WINDOWS
    prefer: str | None = None
    found_encoding: str | None = None
    found_separator: str | None = None

    def learn(self, other: Dialect) -> None:
        """Take over what was found in one file of several; what is unusual is remembered."""
        if self.found_encoding in (None, "utf-8"):
            self.found_encoding = other.found_encoding
        if self.found_separator in (None, ","):
            self.found_separator = other.found_separator if other.separator is None else None

    def assumed(self) -> list[str]:
        """Return what was found out and may be wrong, a sentence each."""
        said = []
        if self.encoding is None and self.found_encoding not in (None, "utf-8"):
            said.append(f"read as {self.found_encoding}, not UTF-8 (--encoding says otherwise).")
        if self.separator is None and self.found_separator not in (None, ","):
            between = {"\t": "a tab"}.get(self.found_separator or "", shown(self.found_separator))
            said.append(f"columns are separated by {between} (--separator says otherwise).")
        return said


def pieces_of(file: BufferedIOBase, where: str, *, most: int | None = None) -> Iterator[bytes]:
    """Yield the content of a binary file, for `csv_blocks`; at most `most` bytes of it.

    Raises
    ------
    luce.errors.DataError
        If the file cannot be read on, or is longer than `most`.
    """
    total, lines = 0, 0
    while True:
        hint = f"It is damaged after line {lines:,}." if total else "Is it what its ending says?"
        with reading(where, hint=hint):
            piece = file.read1(2**20)
        total += len(piece)
        if most is not None and total > most:
            raise DataError(
                f"{where}: unpacks to more than {most:,} bytes, a hundred times its size. Unpack "
                f"it yourself if it is what it should be."
            )
        if not piece:
            return
        yield piece
        lines += _lines_in(piece)


def csv_blocks(
    pieces: Iterable[bytes], *, where: str, rows: int, dialect: Dialect | None = None
) -> Iterator[pl.DataFrame]:
    r"""Yield blocks of string columns from the bytes of a CSV.

    Parameters
    ----------
    pieces : iterable of bytes
        As `pieces_of` yields them, cut anywhere.
    where : str
        How messages name the source.
    rows : int
        How many rows a block has at most.
    dialect : Dialect, optional
        How it is written; it is told what was found.

    Examples
    --------
    >>> [frame.shape for frame in csv_blocks([b"a,b\n1,2\n3,4\n"], where="x", rows=1)]
    [(1, 2), (1, 2)]
    """
    table = _Table(pieces, where, dialect or Dialect())
    empty = True
    for frame in table.frames(rows):
        for block in frame.iter_slices(rows):
            empty = False
            yield block
    if empty:
        yield _from_rows([], table.columns)


class _Table:
    """A CSV that is being read: the header first, then block by block."""

    def __init__(self, pieces: Iterable[bytes], where: str, dialect: Dialect) -> None:
        self.where, self.dialect = where, dialect
        self.text = _Text(pieces, where, dialect)
        first = self.text.peek()
        head = first[: first.find(b"\n") + 1] or first
        if not head.strip():
            raise DataError(f"{where}: the file is empty; the first line must name the columns.")
        for begin, (what, end) in NO_TEXT.items():
            if first.startswith(begin):
                raise DataError(
                    f"{where}: this is {what}, not the text of a CSV. Unpack it or save it as CSV, "
                    f"or give a file whose name ends in {end}."
                )
        if b"\0" in head:
            raise DataError(
                f"{where}: the first line holds bytes of zero, as in UTF-16 without its mark. Say "
                f"the encoding, such as --encoding utf-16-le, or save the file as UTF-8."
            )
        self.separator = self._sniffed(first)
        dialect.found_separator = self.separator
        _, header = next(self._parsed(iter(self.text.line, b""), 0))
        unnamed = [""] * self._has_row_names(first, len(header))
        self.columns = _column_names([*unnamed, *header], where)

    def _sniffed(self, first: bytes) -> str:
        """Return what separates the columns: what divides the first rows alike, into most."""
        if self.dialect.separator is not None:
            return self.dialect.separator
        widths = [len(row) for row in _sample(first, self.dialect.prefer or ",")]
        if self.dialect.prefer is not None and widths[:1] > [1]:
            return self.dialect.prefer
        best, most = ",", (False, 1)
        for separator in SEPARATORS:
            widths = [len(row) for row in _sample(first, separator)]
            width = widths[0] if widths else 1
            alike = all(each in (width, width + 1) for each in widths[1:])
            if width > 1 and (alike, width) > most:
                best, most = separator, (alike, width)
        return best

    def _has_row_names(self, first: bytes, width: int) -> bool:
        """Say whether each row has a value more than the header, as R writes tables."""
        rows = _sample(first, self.separator)[1:]
        return len(rows) > 1 and all(len(row) == width + 1 for row in rows)

    def frames(self, rows: int) -> Iterator[pl.DataFrame]:
        """Yield what comes after the header."""
        while block := self.text.block():
            frame = _read_fast(block, self.columns, self.separator)
            if frame is not None:
                if frame.height:
                    yield frame
            else:
                yield from self._read_slow(block, rows)

    def _read_slow(self, block: bytes, rows: int) -> Iterator[pl.DataFrame]:
        """Yield what Python's csv module reads, or raise the error that names the line."""
        inside = _lines_in(block)
        before = self.text.lines - inside
        # A value in quotes may go on beyond the block's last line.
        lines = itertools.chain(io.BytesIO(block), iter(self.text.line, b""))
        body: list[list[str]] = []
        for line, row in self._parsed(lines, before):
            self._check_width(row, line)
            if row:
                body.append(row)
            elif len(self.columns) == 1:
                # A blank line says nothing, unless the table has one column: a missing value.
                body.append([""])
            if len(body) == rows:
                yield _from_rows(body, self.columns)
                body = []
            if line >= before + inside:
                break
        if body:
            yield _from_rows(body, self.columns)

    def _check_width(self, row: list[str], line: int) -> None:
        width = len(self.columns)
        if row and len(row) != width:
            hint = (
                f"Quote values that contain the separator {shown(self.separator)}."
                if len(row) > width
                else "A row needs a cell for each column; leave those of missing values empty."
            )
            raise DataError(
                f"{self.where}: line {line} has {counted(len(row), 'value')}, but the header names "
                f"{counted(width, 'column')}. {hint}"
            )

    def _parsed(self, lines: Iterable[bytes], before: int) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows of lines that come after line `before`, with the line of their end."""
        reader = csv.reader(self._decoded(lines, before), delimiter=self.separator, strict=True)
        start = before + 1
        try:
            for row in reader:
                yield before + reader.line_num, row
                start = before + reader.line_num + 1
        except csv.Error as error:
            line = before + reader.line_num
            if "new-line" in str(error):
                raise DataError(
                    f"{self.where}: line {line} has a carriage return (\\r) outside of quotes. "
                    f"Save the file with lines that end in \\n or \\r\\n."
                ) from error
            since = f" from line {start} on" if start < line else ""
            raise DataError(
                f"{self.where}: line {line} cannot be read as CSV ({error}). Look for a quote that "
                f"is not closed{since}."
            ) from error

    def _decoded(self, lines: Iterable[bytes], before: int) -> Iterator[str]:
        for number, line in enumerate(lines, before + 1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{self.where}: line {number} is not UTF-8 (byte "
                    f"{error.object[error.start]:#04x}). Say the encoding with --encoding, such as "
                    f"latin-1, or save the file again as UTF-8."
                ) from error
            yield text


class _Text:
    """Bytes as UTF-8, handed out in blocks that end with a line, or line by line.

    Text that is not UTF-8 is decoded by the fallback, if it can be that: no control characters, and
    none of the letters of UTF-8 before.

    Attributes
    ----------
    lines : int
        How many lines were handed out.
    """

    def __init__(self, pieces: Iterable[bytes], where: str, dialect: Dialect) -> None:
        self.where, self.dialect, self.lines = where, dialect, 0
        self._pieces, self._ended = iter(pieces), False
        self._rest, self._at = b"", 0
        self._letters = False
        self._fill(4)
        mark = next((mark for mark in MARKS if self._rest.startswith(mark)), b"")
        self._rest = self._rest[len(mark) :]
        known = MARKS.get(mark, dialect.encoding)
        dialect.found_encoding = known
        if known is not None and known != "utf-8":
            self._pieces = self._recoded(itertools.chain([self._rest], self._pieces), known)
            self._rest, self._ended = b"", False

    def _recoded(self, pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
        decoder, line = codecs.getincrementaldecoder(encoding)(), 1
        for piece in itertools.chain(pieces, [b""]):
            try:
                text = decoder.decode(piece, not piece)
            except UnicodeError as error:
                raise DataError(
                    f"{self.where}: cannot be read as {encoding}, at or after line {line:,} "
                    f"({getattr(error, 'reason', error)}). Say the encoding with --encoding."
                ) from error
            line += text.count("\n")
            if text:
                yield text.encode(errors="replace")

    def _fill(self, size: int) -> None:
        """Read on until so many bytes are there that were not handed out, or all are."""
        parts = [self._rest[self._at :]]
        there = len(parts[0])
        while there < size and not self._ended:
            piece = next(self._pieces, None)
            self._ended = piece is None
            if piece:
                parts.append(piece)
                there += len(piece)
        self._rest, self._at = b"".join(parts), 0

    def _fill_line(self) -> None:
        """Read on until a whole line is there."""
        while self._rest.find(b"\n", self._at) < 0 and not self._ended:
            there = len(self._rest) - self._at
            if there > LONGEST_LINE:
                raise DataError(
                    f"{self.where}: line {self.lines + 1:,} is longer than {LONGEST_LINE:,} bytes. "
                    f"A CSV has a line for each row."
                )
            self._fill(there + BLOCK)

    def peek(self) -> bytes:
        """Return what comes next, about 8 MiB of it."""
        self._fill(BLOCK)
        self._fill_line()
        return self._rest

    def block(self) -> bytes:
        """Return lines, about 8 MiB of them, that end outside of quotes if they can; or nothing."""
        whole = self.peek()
        cut = len(whole) if self._ended else _end_of_rows(whole)
        self._at = cut
        return self._handed(whole[:cut])

    def line(self) -> bytes:
        """Return one line; nothing at the end."""
        self._fill_line()
        start, end = self._at, self._rest.find(b"\n", self._at) + 1
        self._at = end or len(self._rest)
        return self._handed(self._rest[start : self._at])

    def _handed(self, part: bytes) -> bytes:
        self.lines += _lines_in(part)
        if part.isascii() or self.dialect.encoding is not None:
            return part
        if self.dialect.found_encoding in (None, "utf-8"):
            try:
                part.decode()
            except UnicodeDecodeError:
                pass
            else:
                self._letters = True
                return part
        elif self.dialect.found_encoding != self.dialect.fallback:
            return part  # which was recoded
        text = None if self._letters else _as_written(part, self.dialect.fallback)
        if text is None:
            return part  # whoever parses it names the line
        self.dialect.found_encoding = self.dialect.fallback
        return text.encode()


def _as_written(part: bytes, encoding: str) -> str | None:
    """Return text in another encoding than UTF-8, None if it rather is damaged, or no text."""
    marked = part.decode(errors="surrogateescape")
    wrong = sum("\ud800" <= letter <= "\udfff" for letter in set(marked))
    right = sum("\x80" <= letter < "\ud800" or letter > "\udfff" for letter in set(marked))
    if right > wrong:
        return None
    try:
        text = part.decode(encoding)
    except UnicodeError:
        return None
    odd = any(letter < " " and letter not in "\t\r\n" for letter in set(text))
    return None if odd else text


def _end_of_rows(whole: bytes) -> int:
    """Return where to cut: after the last line that ends outside of quotes, if one is near."""
    last = cut = whole.rfind(b"\n") + 1
    odd = whole.count(b'"', 0, cut) % 2 if b'"' in whole else 0
    for _ in range(1000):
        if not odd:
            return cut
        before = whole.rfind(b"\n", 0, cut - 1) + 1
        if not before:
            break
        odd ^= whole.count(b'"', before, cut) % 2
        cut = before
    return last


def _lines_in(part: bytes) -> int:
    ends = int(np.count_nonzero(np.frombuffer(part, np.uint8) == LINE_FEED))  # faster than bytes'
    return ends + (not part.endswith(b"\n") and part != b"")


def _sample(first: bytes, separator: str) -> list[list[str]]:
    """Return the first rows, as far as they are there, blank lines left out."""
    head = first[: 2**18]
    lines = head.decode(errors="replace").splitlines(keepends=True)
    if len(head) < len(first):
        lines.pop()
    try:
        rows = csv.reader(lines, delimiter=separator)
        found = list(itertools.islice((row for row in rows if row), SAMPLE_ROWS))
    except csv.Error:
        return []
    # Of a row that goes on beyond the head there may be a part.
    return found[:-1] if len(head) < len(first) and 1 < len(found) < SAMPLE_ROWS else found


def _read_fast(block: bytes, columns: list[str], separator: str) -> pl.DataFrame | None:
    """Return what Polars reads, or None where it might differ from Python's csv module.

    That is: wherever a quote is not around a whole value, and wherever there is a lone carriage
    return, an empty line, or a row that is too short (too long is an error to Polars as well).
    """
    if len(columns) > 1 and block.endswith((b"\n\n", b"\n\r\n")):
        block = block.rstrip(b"\r\n") + b"\n"
    data, quoted = np.frombuffer(block, np.uint8), b'"' in block
    outside = _outside_quotes(data, ord(separator)) if quoted else np.array(1, bool)
    if outside is None or _is_odd(block, outside):
        return None
    try:
        frame = pl.read_csv(
            block,
            has_header=False,
            separator=separator,
            quote_char='"' if quoted else None,
            schema=dict.fromkeys(columns, pl.String),
        )
    except pl.exceptions.PolarsError:
        return None
    between = np.count_nonzero((data == ord(separator)) & outside)
    if between != (len(columns) - 1) * frame.height:
        return None
    return frame.with_columns(pl.all().fill_null(""))


def _outside_quotes(data: np.ndarray, separator: int) -> np.ndarray | None:
    """Return which bytes are outside of quotes, or None if a quote is not around a whole value.

    Seen as pairs, a doubled quote within a value ends one quoted part and begins the next.
    """
    quotes = np.flatnonzero(data == QUOTE)
    if len(quotes) % 2:
        return None
    opens, closes = quotes[::2], quotes[1::2]
    before = data[opens[opens > 0] - 1]
    after = data[closes[closes < len(data) - 1] + 1]
    begins = (before == separator) | (before == LINE_FEED) | (before == QUOTE)
    ends = (after == separator) | (after == LINE_FEED) | (after == RETURN) | (after == QUOTE)
    if not (begins.all() and ends.all()):
        return None
    outside: np.ndarray = (np.cumsum(data == QUOTE, dtype=np.uint8) & 1) == 0
    return outside


def _is_odd(block: bytes, outside: np.ndarray) -> bool:
    """Return whether there is a mark within, a lone carriage return, or an empty line."""
    if block.startswith((b"\n", b"\r\n", codecs.BOM_UTF8)):
        return True
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        return True
    return any(_is_outside(block, blank, outside) for blank in (b"\n\n", b"\n\r\n"))


def _is_outside(block: bytes, blank: bytes, outside: np.ndarray) -> bool:
    """Return whether what is an empty line stands outside of quotes."""
    at = block.find(blank)
    while at >= 0:
        if outside.ndim == 0 or outside[at]:
            return True
        at = block.find(blank, at + 1)
    return False


def _from_rows(rows: list[list[str]], columns: list[str]) -> pl.DataFrame:
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    return pl.DataFrame(
        [pl.Series(n, each, dtype=pl.String) for n, each in zip(columns, values, strict=True)]
    )


def _column_names(header: list[str], where: str) -> list[str]:
    names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    if twice := repeated(names):
        raise DataError(
            f"{where}: the header names {listed(twice)} more than once. Rename the columns."
        )
    return names


def repeated(names: list[str]) -> list[str]:
    """Return the names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)
