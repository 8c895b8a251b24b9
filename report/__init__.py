"""The report of a run, or of several: one HTML file that needs no network.

``run`` reads a run directory, ``story`` and ``comparison`` gather what is there into plain records,
``page`` puts them and the assets (HTML, style, scripts) into one file. The page is a view of the
records and computes nothing but what is chosen.
"""

from .page import write_report

__all__ = ["write_report"]
