"""The built wheel, in an environment that has nothing else of ours."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT

IMPORTS = "import evonas, genomes; print(evonas.__file__, genomes.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    return next(out.glob("evonas-*.whl"))


def clean_environment(folder: Path, *arguments: str | Path) -> Path:
    """An environment in which this one's pip has installed what the arguments say."""
    venv.create(folder)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "--quiet", *arguments], check=True)
    return folder / "bin"


def assert_it_works(bin_: Path, folder: Path) -> None:
    """Both packages come from the environment, and the command runs, away from the checkout."""
    found = subprocess.run(
        [bin_ / "python", "-c", IMPORTS], cwd=folder, check=True, capture_output=True, text=True
    )
    assert all(path.startswith(str(bin_.parent)) for path in found.stdout.split())
    listed = subprocess.run(
        [bin_ / "evonas", "list"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert "spaces: chain, channels, darts" in listed.stdout
    assert "darts_v2" in listed.stdout  # cells are files of their own
    assert "val_error" in listed.stdout


def test_the_wheel_holds_both_packages_whole(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for package in ("evonas", "genomes"):
        tracked = {
            str(path.relative_to(ROOT))
            for path in (ROOT / package).rglob("*")
            if path.suffix in {".py", ".typed", ".json", ".html", ".css", ".js"}
        }
        assert tracked
        assert tracked <= held


def test_the_wheel_works_beside_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    bin_ = clean_environment(tmp_path / "venv", "--no-deps", wheel)
    # The dependencies of this environment, but, without its .pth files, not the checkout.
    theirs = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (theirs / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert_it_works(bin_, tmp_path)


@pytest.mark.slow
def test_the_wheel_installs_all_it_needs(wheel: Path, tmp_path: Path) -> None:
    bin_ = clean_environment(tmp_path / "venv", "-c", ROOT / "constraints.txt", wheel)
    assert_it_works(bin_, tmp_path)
