"""A thinned corpus of hostile run folders; ``python -m tests.hostile`` has the whole one."""

import sys

import pytest

from tests.hostile import runs


@pytest.mark.skipif(sys.platform == "win32", reason="the mutations need links, pipes and alarms")
def test_a_mutated_run_folder_raises_a_luce_error_or_predicts_what_it_did(tmp_path):
    """Of 150 damaged folders: no other exception, no hang, no prediction that silently changed."""
    assert runs.failures(150, 0, tmp_path, pages=0.02) == []
