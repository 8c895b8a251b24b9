"""Trainings that are tried one after the other, to find a good one."""

from .request import sweep

__all__ = ["sweep"]
