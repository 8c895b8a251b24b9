"""The report of a run, or of several: one HTML file that needs no network.

``run`` gathers what a run holds into plain records, ``page`` puts them and the assets (HTML, style,
scripts) into one file. The page is a view of the records and computes nothing but what is chosen.
"""
