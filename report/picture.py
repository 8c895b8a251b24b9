"""``python -m cleansteer.report.picture RUN FILE.png``: the picture of a run's report.

Headless Chromium opens the report, and what it shows first is kept.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..core.errors import InputError
from ..core.tables import write_atomically
from .page import write_report

WIDTH, HEIGHT = 1280, 1640
QUIET = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
"""Switches of a Chromium without a window that asks no host of its own accord."""
SWITCHES = (
    *QUIET,
    "hide-scrollbars",
    f"window-size={WIDTH},{HEIGHT}",
    "virtual-time-budget=20000",
)
_SECONDS = 120


def draw(run: Path, out: Path) -> None:
    """Write the picture.

    Raises:
        InputError: Chromium is not installed, or the run cannot be read.

    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise InputError("chromium is not installed; expected it on PATH; apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "report.html", Path(folder) / "report.png"
        write_report([run], page)
        switches = (*SWITCHES, f"user-data-dir={folder}/profile", f"screenshot={picture}")
        command = [chromium, *(f"--{switch}" for switch in switches), page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)  # noqa: S603
        write_atomically(out, lambda path: shutil.copyfile(picture, path))


def main() -> None:
    """Take the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(arguments.run, arguments.out)


if __name__ == "__main__":
    main()
