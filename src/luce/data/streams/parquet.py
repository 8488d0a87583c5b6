"""How many rows the groups of a Parquet file have, from its footer: Polars does not say.

A slice of a file is decoded from the start of its group of rows. So a group of a hundred million
rows, read slice by slice, is decoded in time that grows with its square.

The footer is Thrift's compact protocol (apache/thrift, thrift-compact-protocol.md): fields with
their types and numbers, lists with their lengths, integers of seven bits a byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["group_rows"]

_LARGEST_FOOTER: Final = 2**26
_ROW_GROUPS, _GROUP_ROWS = 4, 3  # the numbers of the fields: FileMetaData's, RowGroup's


def group_rows(path: Path) -> list[int]:
    """Return how many rows each group has; nothing of a file whose footer is not understood.

    Examples
    --------
    >>> import polars as pl, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x.parquet"
    >>> pl.DataFrame({"x": range(10)}).write_parquet(path, row_group_size=4)
    >>> group_rows(path)
    [4, 4, 2]
    """
    try:
        with path.open("rb") as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")
            if file.read(4) != b"PAR1" or length > _LARGEST_FOOTER:
                return []
            file.seek(-8 - length, 2)
            footer = _Compact(file.read(length))
        groups = footer.struct({_ROW_GROUPS: {_GROUP_ROWS: None}}).get(_ROW_GROUPS, [])
        return [int(group[_GROUP_ROWS]) for group in groups]
    except (OSError, LookupError, ValueError, TypeError):
        return []


class _Compact:
    """Reads structs, and skips all fields but those that are wanted."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def _number(self) -> int:
        """Return an unsigned integer."""
        value = shift = 0
        while True:
            byte = self.content[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _signed(self) -> int:
        value = self._number()
        return value >> 1 ^ -(value & 1)

    def struct(self, wanted: dict[int, object]) -> dict[int, list[dict[int, int]]]:
        """Return the fields with these numbers; of a list of structs, theirs."""
        found: dict[int, object] = {}
        field = 0
        while (head := self.content[self.at]) != 0:
            self.at += 1
            field = field + (head >> 4) if head >> 4 else self._signed()
            value = self._value(head & 15, wanted.get(field))
            if field in wanted:
                found[field] = value
        self.at += 1
        return found  # type: ignore[return-value]

    def _value(self, kind: int, wanted: object) -> object:  # noqa: PLR0911 - one for each type
        match kind:
            case 1 | 2:  # true, false: the type is the value
                return kind == 1
            case 3:
                self.at += 1
                return None
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                self.at += 8
                return None
            case 8:
                length = self._number()
                self.at += length
                return None
            case 9 | 10:
                head = self.content[self.at]
                self.at += 1
                length = head >> 4 if head >> 4 < 15 else self._number()
                if head & 15 in (1, 2):  # in a list, a byte each
                    self.at += length
                    return None
                return [self._value(head & 15, wanted) for _ in range(length)]
            case 12:
                return self.struct(wanted if isinstance(wanted, dict) else {})
        raise ValueError(f"a field of type {kind}")
