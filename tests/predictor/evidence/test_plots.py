"""Plots that say what they show, the same bytes for the same curve."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cleansteer.predictor.evidence.learning import LearningCurve, summarise_curve
from cleansteer.predictor.evidence.plots import COLOURS, plot_curve

PNG = b"\x89PNG\r\n\x1a\n"


def summary(methods: tuple[str, ...], sizes: tuple[int, ...]) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    scores = pd.DataFrame(
        [(m, n, 0, s) for m in methods for n in sizes for s in generator.random(1)],
        columns=["method", "n", "repeat", "score"],
    )
    predictions = {(m, n): generator.normal(size=(1, 20)) for m in methods for n in sizes}
    return summarise_curve(LearningCurve(scores, predictions, generator.normal(size=20)), seed=0)


PANELS = {
    "mini & one": summary(("ridge", "ours"), (20, 60, 240)),
    "two": summary(("ours",), (60, 240)),
    "three": summary(("ridge",), (100,)),
    "four": summary(("ridge", "boosting"), (20, 60)),
}


@pytest.mark.parametrize("count", [1, 4])
def test_the_plot_is_an_svg_that_names_what_it_shows(tmp_path: Path, count: int) -> None:
    panels = dict(list(PANELS.items())[:count])
    path = tmp_path / "new" / "curve.svg"
    plot_curve(panels, path, {"mini & one": 0.9})
    texts = {e.text.strip() for e in ET.parse(path).iter() if e.tag.endswith("text") and e.text}
    methods = {m for table in panels.values() for m in table["method"]}
    assert set(panels) | methods | {"ceiling", "20", "60", "240"} <= texts
    assert {"labelled features", "out-of-fold Spearman"} <= texts
    assert [p.name for p in path.parent.iterdir()] == ["curve.svg"]


def test_a_method_has_its_colour_in_every_panel(tmp_path: Path) -> None:
    plot_curve({"two": PANELS["two"]}, tmp_path / "alone.svg")
    plot_curve({"one": PANELS["mini & one"], "two": PANELS["two"]}, tmp_path / "both.svg")
    alone, both = ((tmp_path / f"{n}.svg").read_text().lower() for n in ("alone", "both"))
    assert COLOURS[0].lower() in alone
    assert COLOURS[1].lower() not in alone
    assert both.count(COLOURS[1].lower()) > both.count(COLOURS[0].lower()) > 0, "ours is in two"
    assert "ceiling" not in alone


@pytest.mark.parametrize("ending", ["svg", "png", "SVG"])
def test_the_same_curve_is_the_same_file(tmp_path: Path, ending: str) -> None:
    one, again = (tmp_path / f"{name}.{ending}" for name in ("one", "again"))
    for path in (one, again):
        plot_curve(PANELS, path, {"two": 0.8})
    assert one.read_bytes() == again.read_bytes()
    assert one.read_bytes().startswith(PNG) == (ending == "png")
    assert b"<dc:date>" not in one.read_bytes()
    plot_curve(PANELS, again, {"two": 0.7})
    assert one.read_bytes() != again.read_bytes()


@pytest.mark.parametrize("column", ["n", "value", "low", "high"])
def test_the_plot_shows_every_column(tmp_path: Path, column: str) -> None:
    table = PANELS["mini & one"]
    moved = table.assign(**{column: table[column] + 1})
    for name, shown in (("one", table), ("moved", moved)):
        plot_curve({"a": shown}, tmp_path / f"{name}.svg", {"a": 3.0})
    assert (tmp_path / "one.svg").read_bytes() != (tmp_path / "moved.svg").read_bytes()


def test_numbers_of_labels_stand_at_their_logarithms(tmp_path: Path) -> None:
    plot_curve({"a": summary(("m",), (20, 60, 180))}, tmp_path / "c.svg")
    at = {e.text: e.get("x") for e in ET.parse(tmp_path / "c.svg").iter() if e.get("x")}
    left, middle, right = (float(at[n] or "nan") for n in ("20", "60", "180"))
    assert right > middle > left
    assert right - middle == pytest.approx(middle - left, abs=0.01)  # written to 6 digits


def test_plots_leave_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plot_curve(PANELS, tmp_path / "curve.svg")
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("panels", "name", "ceilings"),
    [({}, "c.svg", {}), (PANELS, "c.pdf", {}), (PANELS, "c", {}), (PANELS, "c.svg", {"five": 1.0})],
)
def test_a_plot_that_cannot_be_drawn_is_refused(
    tmp_path: Path, panels: dict[str, pd.DataFrame], name: str, ceilings: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="expected one panel or more, ceilings for them alone"):
        plot_curve(panels, tmp_path / name, ceilings)
    assert not list(tmp_path.iterdir())
