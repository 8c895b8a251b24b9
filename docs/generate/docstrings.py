"""Docstrings for the page of Python names: where mkdocstrings finds them, and their Sphinx roles."""

import atexit
import re
import shutil
import sys
import tempfile
from pathlib import Path

import cleansteer

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?(?:\w+\.)*(\w+)</code>")


def on_startup(**_: object) -> None:
    """Put a folder on the path that holds the package under its name: a clone may have any other.

    Its rooms alone: mkdocstrings reads all that lies below, links followed, and the repository's
    root, which is the package, also holds the virtual environment.
    """
    folder = tempfile.mkdtemp(prefix="cleansteer-docs-")
    atexit.register(shutil.rmtree, folder)
    package = Path(cleansteer.__file__).parent
    rooms = Path(folder) / cleansteer.__name__
    rooms.mkdir()
    for path in (*package.glob("*.py"), *(init.parent for init in package.glob("*/__init__.py"))):
        (rooms / path.name).symlink_to(path)
    sys.path.insert(0, folder)


def on_page_content(content: str, **_: object) -> str:
    """Replace :func:`~a.b.name`, which Markdown does not know, by the name as code."""
    return _ROLE.sub(r"<code>\1</code>", content)
