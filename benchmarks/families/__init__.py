"""The benchmark of families: settings are screened from nothing and compared across families of
models, kinds of SAE and widths.

``families`` screens and compares, ``formats`` writes the tables, and running the package estimates
anew from the published tables.
"""
