"""Sphinx' roles in docstrings, which Markdown does not know: :func:`~a.b.name` becomes `name`."""

import re

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?(?:\w+\.)*(\w+)</code>")


def on_page_content(content: str, **_: object) -> str:
    """Leave the name, as code."""
    return _ROLE.sub(r"<code>\1</code>", content)
