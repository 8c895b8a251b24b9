"""Comparisons across settings, what training brings, and speed."""
