"""Predict steering labels from statistics, and say how far to trust it."""
