"""A part of the hostile corpus: damaged and malicious data files."""

import pytest

from tests.hostile import files

EACH = 16


@pytest.mark.parametrize("kind", files.KINDS)
def test_damaged_files_are_read_or_refused(kind, capfd):
    """Reading a bad file works or raises a LuceError: no other exception, warning or process."""
    wrong = {number: files.check(kind, number, 0) for number in range(EACH)}
    assert {number: what for number, what in wrong.items() if what} == {}
    assert capfd.readouterr().err == ""
