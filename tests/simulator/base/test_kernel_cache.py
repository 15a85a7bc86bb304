"""Where compiled kernels are kept when neither the installation nor a home folder may be written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# As root may write anywhere, no file can be made beside modules, and Numba is left with the place that it is told.
RUN = """
import sys
import tempfile
def refuse(*arguments, **options):
    raise PermissionError("read-only")
tempfile.TemporaryFile = refuse
from numba.core import caching
impl = getattr(caching, "CacheImpl", None) or caching._CacheImpl
impl._locator_classes = [caching.UserProvidedCacheLocator]
sys.argv = ["gblr-hw", "machine", "list"]
from gblr_hw.cli.main import main
main()
"""


def run(temporary: Path) -> subprocess.CompletedProcess[str]:
    environment = {**{key: value for key, value in os.environ.items() if "NUMBA" not in key}, "TMPDIR": str(temporary)}
    return subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


@pytest.mark.skipif(sys.platform == "win32", reason="users have numbers elsewhere")
def test_a_temporary_folder_of_the_users_own_is_used_and_told_once(tmp_path: Path) -> None:
    folder = tmp_path / f"gblr-hw-kernels-{os.getuid()}"
    first, second = run(tmp_path), run(tmp_path)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "mid-32" in first.stdout
    assert first.stderr == (
        f"note: compiled kernels are kept in {folder}, since neither the installation nor a home folder may be "
        "written; NUMBA_CACHE_DIR names another place\n"
    )
    assert second.stderr == ""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="users have numbers elsewhere")
def test_a_folder_that_others_may_write_is_never_run_from(tmp_path: Path) -> None:
    folder = tmp_path / f"gblr-hw-kernels-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    done = run(tmp_path)
    assert done.returncode == 0
    assert "note: compiled kernels are kept in " in done.stderr
    assert str(folder) not in done.stderr
    assert list(tmp_path.iterdir()) == [folder]  # the other one went with the process
    assert list(folder.iterdir()) == []


def test_where_the_installation_may_be_written_nothing_is_asked_of_numba(tmp_path: Path) -> None:
    script = "import sys\nimport simulator.base\nprint('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
