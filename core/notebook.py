"""How results show themselves in a notebook: plain HTML, no script, text escaped."""

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records.allowlist import Allowlist
    from .records.verdict import Verdict

COLOURS = {"trusted": "#1a7f37", "partly": "#9a6700", "not trusted": "#cf222e"}
_SHOWN_FEATURES = 20


def judgement_html(judgement: str) -> str:
    """A verdict's word in its colour."""
    colour = COLOURS.get(judgement, "inherit")
    return f'<strong style="color:{colour}">{escape(judgement)}</strong>'


def verdict_html(verdict: "Verdict") -> str:
    """The verdict, an axis a line, with the rules that failed."""
    axes = "".join(
        f"<li>{escape(axis)}: {judgement_html(judged.verdict)}"
        + (f" ({escape('; '.join(judged.told))})" if judged.told else "")
        + "</li>"
        for axis, judged in verdict.axes.items()
    )
    unchecked = "" if verdict.fresh_check else "<li>not checked on fresh contexts</li>"
    return f"<div>Ranking: {judgement_html(verdict.overall)}<ul>{axes}{unchecked}</ul></div>"


def allowlist_html(allowlist: "Allowlist") -> str:
    """What the allowlist is for, its verdict, and its first features."""
    listed = ", ".join(map(str, allowlist.features[:_SHOWN_FEATURES]))
    more = len(allowlist.features) - _SHOWN_FEATURES
    rows = [
        ("setting", escape(allowlist.setting)),
        ("model", escape(allowlist.model.name)),
        ("SAE", f"{escape(allowlist.sae.label)} at {escape(allowlist.hook)}"),
        (
            "features",
            f"{len(allowlist.features)}: {listed}" + (f" and {more} more" if more > 0 else ""),
        ),
        ("ranked by", escape(allowlist.ranked_by)),
        ("verdict", judgement_html(allowlist.trust.overall)),
    ]
    return f"<div><strong>Allowlist</strong>{rows_html(rows)}</div>"


def rows_html(rows: Iterable[tuple[str, str]]) -> str:
    """A table of two columns; the second holds HTML."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<table>{body}</table>"
