"""A part of the hostile requests; ``python -m tests.hostile`` sends ten thousand."""

from tests.hostile import serving


def test_bad_requests_harm_nobody():
    """No crash, no hang, no 500, no traceback, and good requests are answered as before."""
    assert serving.main(250, seed=1) == 0
