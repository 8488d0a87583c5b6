"""What is installed: the built wheel, and not the source tree."""

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install 'luce[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_the_package(wheel):
    """Templates, data and the mark of types are in it, and nothing besides."""
    found = {name for name in wheel.namelist() if name.startswith("luce/")}
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file())
    expected = {path.relative_to(ROOT / "src").as_posix() for path in files}
    expected = {name for name in expected if "__pycache__" not in name}
    assert found == expected
    assert {"luce/report/page.html", "luce/py.typed"} <= found


def test_the_wheel_names_its_command_and_what_it_needs(wheel):
    """`luce` is a command, and each dependency of pyproject.toml is one of the wheel."""
    info = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    needed = Parser().parsestr(wheel.read(info).decode()).get_all("Requires-Dist")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bare = {re.split(r"[<>=\s;]", each)[0] for each in needed if "extra ==" not in each}
    # In a wheel, the dots and underscores of a name are hyphens.
    assert {re.sub(r"[-_.]+", "-", name) for name in bare} == {
        re.sub(r"[-_.]+", "-", re.split(r"[<>=;\s]", each)[0]) for each in project["dependencies"]
    }
    commands = wheel.read(info.replace("METADATA", "entry_points.txt")).decode()
    assert "luce = luce.cli:main" in commands
