"""How a study shows itself in a notebook."""

from html import escape
from typing import TYPE_CHECKING

from ..core.notebook import judgement_html, rows_html, verdict_html
from ..core.records import Screening

if TYPE_CHECKING:
    from .study import Study

_SHOWN = 10
_TOKENS = {"fires at": "peak_top_tokens", "promotes": "direct_top_tokens"}
_COLUMNS = ("rank", "feature", "predicted_clean_score", "measured_clean_score", "final_act_freq")


def study_html(study: "Study") -> str:
    """What is studied, the verdict, and the cleanest features; plain HTML, no script."""
    setting = study.setting
    rows = [
        ("model", escape(setting.model.name)),
        ("steered SAE", escape(setting.sae.label)),
        ("downstream SAE", escape(setting.downstream_sae.label)),
        ("directory", escape(str(study.path))),
    ]
    if not study.screened:
        rows.append(("verdict", "not screened yet: call screen()"))
        return f"<div><strong>Study {escape(setting.name)}</strong>{rows_html(rows)}</div>"
    screening = study.screening
    rows += [
        ("features", f"{screening.n_features}, {_labelled(screening)}"),
        ("verdict", judgement_html(screening.trust.overall)),
    ]
    return (
        f"<div><strong>Study {escape(setting.name)}</strong>{rows_html(rows)}"
        f"{verdict_html(screening.trust)}{_cleanest(study)}</div>"
    )


def _labelled(screening: Screening) -> str:
    labelled = f"{screening.n_labelled} of them labelled"
    words = {
        "labels": labelled,
        "linear response": "ranked by linear response, none of them labelled",
        "measurement": f"{labelled}, so that the ranking is measured",
    }
    return words[screening.ranked_by]


def _cleanest(study: "Study") -> str:
    ranking = study.ranking
    shown = ranking[ranking["eligible"]].head(_SHOWN)
    table = shown[[name for name in _COLUMNS if name in shown]].copy()
    for title, name in _TOKENS.items():
        if name in shown:
            table[title] = [" ".join(map(repr, tokens[:5])) for tokens in shown[name]]
    html: str = table.to_html(index=False, border=0, na_rep="", float_format="{:.3g}".format)
    return f"<p>Cleanest features</p>{html}"
