"""Dates as people write them: which are read, what is assumed, what is said of others."""

import polars as pl
import pytest

from luce.data.columns import infer, read_column
from luce.data.columns.date import FORMATS, as_moments, example
from luce.data.directions import Directions
from luce.data.tables import TableSchema
from luce.errors import DataError

DAY, MOMENT = "2023-04-22 00:00:00", "2023-04-22 08:00:00"


def column(*values, **told):
    """Return what a column is that has the values again and again."""
    return infer([pl.Series("d", values * 30)], **told)[0]


@pytest.mark.parametrize(
    ("text", "other", "moment"),
    [
        ("2023-04-22T10:00:00+02:00", "2023-11-22T10:00:00+01:00", MOMENT),
        ("2023-04-22 10:00:00+02:00", "2023-11-22 10:00:00+01:00", MOMENT),
        ("2023-04-22 08:00:00.5+00", "2023-11-22 08:00:00+00", f"{MOMENT}.500000"),
        ("2023-04-22T08:00Z", "2023-11-22T08:00Z", MOMENT),
        ("Apr 22, 2023", "May 1, 2023", DAY),
        ("April 22, 2023", "September 1, 2023", DAY),
        ("22 Apr 2023", "1 April 2023", DAY),
        ("22-Apr-2023", "01-Apr-2023", DAY),
        ("22-04-2023", "23-04-2023", DAY),
        ("4/22/23", "4/23/99", DAY),
        ("22-04-23", "23-04-99", DAY),
        ("04-22-23", "04-23-99", DAY),
        ("23-04-22", "99-04-23", DAY),
        ("23/04/22 08:00", "99/04/23 09:30", MOMENT),
        ("22 Apr 23", "1 April 99", DAY),
        ("22-Apr-23", "01-Apr-99", DAY),
        ("Apr 22, 23", "May 1, 99", DAY),
        ("04/22/2023 8:00 AM", "04/22/2023 11:30 PM", MOMENT),
        ("22.04.2023 08:00", "23.04.2023 09:30", MOMENT),
        ("2023/04/22 08:00:00", "2023/04/23 09:30:00", MOMENT),
    ],
)
def test_common_ways_to_write_a_date_are_read(text, other, moment):
    """Offsets, names of months, short years and times of day: the same moment as Python has."""
    found = column(text, other)
    assert found.kind == "date"
    read = as_moments(pl.Series([text]), found.format)
    assert str(read[0]) == moment


@pytest.mark.parametrize(
    "values", [("7/10", "8/10"), ("5 m2", "6 m2"), ("3 l/100km", "4 l/100km"), ("5-pack", "6-pack")]
)
def test_units_with_digits_are_still_units(values):
    """What follows a number is a unit, unless it is the rest of a date or of a time."""
    assert column(*values).kind == "number"
    assert column("12:30", "13:30").kind == "category"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("03/05/2024", "04/12/2024"), ["as month/day/year, though day/month/year fits as well"]),
        (("03/25/2024", "04/12/2024"), ["as month/day/year"]),
        (("25/03/2024", "04/12/2024"), ["as day/month/year"]),
        (("03-05-2024", "04-12-2024"), ["as day/month/year, though month/day/year fits as well"]),
        (("25/3/98", "4/12/98"), ["as day/month/year", "with years of two digits as 1970 to 2069"]),
        (
            ("01-02-03", "02-03-04"),
            [
                "as day/month/year, though month/day/year or year/month/day fits as well",
                "with years of two digits as 1970 to 2069",
            ],
        ),
        (("98-03-25",), ["as year/month/day", "with years of two digits as 1970 to 2069"]),
        (("2024-03-05T10:00:00+02:00",), ["in UTC, whatever their offsets"]),
        (("2024-03-05",), []),
        (("05.03.2024",), []),
    ],
)
def test_what_was_assumed_of_a_date_is_said_and_stored(values, said):
    """The order of day and month, the century and the zone are said, now and of a stored run."""
    schema = TableSchema.infer(
        pl.DataFrame({"d": values * 30}), directions=Directions(types={"d": "date"})
    )
    assert schema.assumed == [f"dates read {each}: 'd'." for each in said]
    again = read_column(schema.columns[0].to_json())
    assert list(again.assumed) == said


def test_years_below_1000_are_no_years():
    """No year of two digits is read as one of the first century, and none stops the inference."""
    for written in ("0024-04-22", "0000-04-22", "24-04-22", "+12024-04-22"):
        assert as_moments(pl.Series([written]), None).to_list() == [None]
        assert as_moments(pl.Series([written]), "%Y-%m-%d").to_list() == [None]
    assert column("0024-04-22", "0000-04-22").kind == "category"
    found = column("99-04-23", "00-04-23", types={"d": "date"})
    assert found.format == "%y-%m-%d"
    assert found.note == "1999-04-23 to 2000-04-23"


def test_a_date_of_an_earlier_version_is_read():
    """A stored column that does not say whether its order was sure is taken as before."""
    body = column("03/25/2024", "04/12/2024").to_json()
    del body["ambiguous"]
    assert read_column(body).format == "%m/%d/%Y"


@pytest.mark.parametrize("values", [("20240131", "20240215"), (20240131, 20240215)])
def test_whole_numbers_are_dates_where_the_user_says_it(values):
    """``20240131`` is a number; with ``--type d=date`` it is a date, as text and as a number."""
    assert column(*values).kind == "number"
    found = column(*values, types={"d": "date"})
    assert found.kind == "date"
    for written in (pl.Series(["20240131"]), pl.Series([20240131]), pl.Series([20240131.0])):
        assert str(as_moments(written, found.format)[0]) == "2024-01-31 00:00:00"


@pytest.mark.parametrize("date_format", FORMATS)
def test_the_example_of_a_format_is_read_by_it(date_format):
    """What a message shows as an example is a date of that format."""
    read = as_moments(pl.Series([example(date_format)]), date_format)
    assert str(read[0]).startswith("2024-03-05")


def test_a_type_that_cannot_be_says_what_can():
    """A column that is no date says which dates are read, and what to do."""
    with pytest.raises(DataError, match=r"cannot be read as a date: .*'Q1 2024'") as caught:
        column("Q1 2024", "Q2 2024", types={"d": "date"})
    message = str(caught.value)
    for written in ("2024-03-05T13:30:00+02:00", "05/03/2024", "Mar 05, 2024", "20240305"):
        assert written in message
    assert message.endswith("Name another kind for it, or none.")
    with pytest.raises(DataError, match="must be true, t, yes, y, 1 or false"):
        column("Q1 2024", "Q2 2024", types={"d": "boolean"})
