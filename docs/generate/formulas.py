r"""Formulas as MathML, which browsers draw themselves: no script, no fonts, no network.

Arithmatex finds ``$...$`` and ``$$...$$`` and leaves ``\(...\)`` and ``\[...\]`` in the page.
"""

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>',
    re.DOTALL,
)


def on_page_content(content: str, **_: object) -> str:
    """Put MathML in the formulas' places."""
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    kind, formula = match.groups()
    # The converter takes what stands in \text{...} as it is.
    formula = html.unescape(formula).replace(r"\_", "_")
    if kind == "div":
        return f"<p>{convert(formula, display='block')}</p>"
    return str(convert(formula, display="inline"))
