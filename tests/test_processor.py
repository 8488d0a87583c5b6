"""What is asked of the machine."""

from pathlib import Path

import pytest

from luce import processor


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux says what is free there")
def test_free_memory_counts_what_caches_hold():
    """It is what the kernel calls available, up to what others take or give back meanwhile."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    sizes = {
        name: int(rest.split()[0]) << 10 for name, _, rest in (s.partition(":") for s in lines)
    }
    assert abs(processor.free_memory() - sizes["MemAvailable"]) < 0.25 * sizes["MemTotal"]
