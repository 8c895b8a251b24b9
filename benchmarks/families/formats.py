"""Tables as Markdown, LaTeX, CSV and JSON."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ...core.tables import Json, write_text
from ...report.comparison import ComparisonTable

FORMAT = "cleansteer-families/1"
STEM = "families"
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
_MARKDOWN = str.maketrans(
    {
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        **{character: f"\\{character}" for character in "\\|*`"},
    }
)


def write_tables(
    tables: Sequence[ComparisonTable], heading: Sequence[str], folder: Path
) -> list[Path]:
    """Write ``families.md``, ``.tex``, ``.csv`` and ``.json``, each whole or not at all.

    Args:
        tables: what is compared.
        heading: lines that say how they were made.
        folder: made where it is missing.

    """
    texts = {
        "md": to_markdown(tables, heading),
        "tex": to_latex(tables, heading),
        "csv": to_csv(tables),
        "json": json.dumps(to_json(tables, heading), indent=1, allow_nan=False) + "\n",
    }
    for ending, text in texts.items():
        write_text(folder / f"{STEM}.{ending}", text)
    return [folder / f"{STEM}.{ending}" for ending in texts]


def to_markdown(tables: Sequence[ComparisonTable], heading: Sequence[str]) -> str:
    """A section for every table."""
    parts = ["# The families compared\n", *(f"{line}\n" for line in heading)]
    for table in tables:
        rows = table.as_text()
        lines = [_line(rows[0]), _line("---" for _ in rows[0]), *(_line(r.values()) for r in rows)]
        parts += [
            f"## {table.title}\n",
            f"{_escape_markdown(table.note)}\n",
            "\n".join(lines) + "\n",
        ]
    return "\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escape_markdown, cells))} |"


def _escape_markdown(text: str) -> str:
    return _one_line(text).translate(_MARKDOWN)


def to_latex(tables: Sequence[ComparisonTable], heading: Sequence[str]) -> str:
    r"""A note and a ``longtable`` each, to be read in by ``\input``."""
    parts = [r"% In the preamble: \usepackage{booktabs,longtable}"]
    parts += [f"% {_one_line(line)}" for line in heading]
    for table in tables:
        cells = pd.DataFrame(
            [
                {_escape_latex(n): _escape_latex(text) for n, text in r.items()}
                for r in table.as_text()
            ]
        )
        made = cells.to_latex(
            index=False,
            longtable=True,
            escape=False,
            column_format="l" * len(cells.columns),
            caption=_escape_latex(table.title),
            label=f"tab:{table.name.replace('_', '-')}",
        )
        parts += ["", _escape_latex(table.note), made.rstrip()]
    return "\n".join(parts) + "\n"


def _escape_latex(text: str) -> str:
    escaped = _one_line(text).translate(_LATEX)
    # After the end of a row these would be its optional arguments.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _one_line(text: str) -> str:
    return " ".join(text.split())


def to_csv(tables: Sequence[ComparisonTable]) -> str:
    """All tables below each other, a column ``table`` in front; what a table lacks is empty."""
    frames = [table.frame.assign(table=table.name) for table in tables]
    columns = list(dict.fromkeys(name for frame in frames for name in frame))
    rows = [row for frame in frames for row in frame.to_dict("records")]
    ordered = ["table", *(name for name in columns if name != "table")]
    return pd.DataFrame(rows, columns=ordered, dtype=object).to_csv(index=False)


def to_json(tables: Sequence[ComparisonTable], heading: Sequence[str]) -> Json:
    """Everything as plain data; missing figures are null."""
    return {
        "format": FORMAT,
        "made": list(heading),
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "note": table.note,
                "columns": [str(name) for name in table.frame],
                "rows": [
                    [None if pd.isna(value) else value for value in row.values()]
                    for row in table.frame.to_dict("records")
                ],
            }
            for table in tables
        ],
    }
