"""What the footer of a Parquet file says of its groups of rows, and Polars does not.

How many rows they have: a slice of a file is decoded from the start of its group. So a group of a
hundred million rows, read slice by slice, is decoded in time that grows with its square. And where
the bytes of each column are: of a file that lies elsewhere only some are fetched.

The footer is Thrift's compact protocol (apache/thrift, thrift-compact-protocol.md): fields with
their types and numbers, lists with their lengths, integers of seven bits a byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FOOTER_END", "Group", "footer_bytes", "groups_in", "rows_in"]

Found = TypeVar("Found")

FOOTER_END: Final = 8
"""Bytes behind a footer: its length, and what Parquet is known by."""

_LARGEST_FOOTER: Final = 2**26
# The numbers of fields: FileMetaData's, RowGroup's, ColumnChunk's, ColumnMetaData's.
_ROW_GROUPS, _COLUMNS, _GROUP_ROWS, _META, _PATH, _SIZE = 4, 1, 3, 3, 3, 7
_STARTS: Final = (9, 10, 11)  # of data, index and dictionary pages
_GROUP: Final = {
    _COLUMNS: {_META: {_PATH: None, _SIZE: None} | dict.fromkeys(_STARTS)},
    _GROUP_ROWS: None,
}


class Group(NamedTuple):
    """A group of rows.

    Attributes
    ----------
    rows : int
    chunks : list of (str, int, int)
        A column, from which byte of the file to before which other it has bytes; a nested column
        has several.
    """

    rows: int
    chunks: list[tuple[str, int, int]]


def footer_bytes(end: bytes) -> int:
    """Return how long a footer is, from the last `FOOTER_END` bytes of a file.

    Raises
    ------
    ValueError
        If it is none, or longer than one should be.
    """
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length > _LARGEST_FOOTER:
        raise ValueError("no footer")
    return length


def groups_in(footer: bytes) -> list[Group]:
    """Return the groups that a footer has.

    Raises
    ------
    ValueError
        If it is not understood.
    """
    return _of_groups(
        footer,
        _GROUP,
        lambda group: Group(group[_GROUP_ROWS], [_chunk(each[_META]) for each in group[_COLUMNS]]),
    )


def rows_in(footer: bytes) -> list[int]:
    """Return how many rows the groups have: in less time, where there are many columns.

    Raises
    ------
    ValueError
        If it is not understood.
    """
    return _of_groups(footer, {_GROUP_ROWS: None}, lambda group: int(group[_GROUP_ROWS]))


def _of_groups(
    footer: bytes, wanted: dict[int, Any], known: Callable[[dict[int, Any]], Found]
) -> list[Found]:
    try:
        groups = _Compact(footer).struct({_ROW_GROUPS: wanted}).get(_ROW_GROUPS, [])
        return [known(group) for group in groups]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("a footer of another kind") from error


def _chunk(meta: dict[int, Any]) -> tuple[str, int, int]:
    start = min(meta[each] for each in _STARTS if meta.get(each))
    return meta[_PATH][0].decode(), start, start + meta[_SIZE]


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

    def struct(self, wanted: dict[int, Any]) -> dict[int, Any]:
        """Return the fields with these numbers; of structs, and lists of such, theirs."""
        found: dict[int, Any] = {}
        field = 0
        while (head := self.content[self.at]) != 0:
            self.at += 1
            field = field + (head >> 4) if head >> 4 else self._signed()
            value = self._value(head & 15, wanted.get(field))
            if field in wanted:
                found[field] = value
        self.at += 1
        return found

    def _value(self, kind: int, wanted: Any) -> Any:  # noqa: PLR0911 - one for each type
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
                return self.content[self.at - length : self.at]
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
