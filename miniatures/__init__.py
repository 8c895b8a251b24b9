"""Miniature models and SAEs that ship with the package, and how they were trained.

``python -m cleansteer.miniatures`` retrains them from nothing.
"""
