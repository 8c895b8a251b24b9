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
    """Put a folder on the path that holds the package under its name: a clone may have any other."""
    folder = tempfile.mkdtemp(prefix="cleansteer-docs-")
    atexit.register(shutil.rmtree, folder)
    package = Path(cleansteer.__file__).parent
    (Path(folder) / cleansteer.__name__).symlink_to(package, target_is_directory=True)
    sys.path.append(folder)


def on_page_content(content: str, **_: object) -> str:
    """Replace :func:`~a.b.name`, which Markdown does not know, by the name as code."""
    return _ROLE.sub(r"<code>\1</code>", content)
