"""The verdict on a ranking, and the features of an allowlist.

Both read core's records and tables alone, nothing of ``evidence``: an examination closes with a
verdict.
"""

from .choice import choose_allowed
from .forecast import judge_forecasts
from .judgement import judge

__all__ = ["choose_allowed", "judge", "judge_forecasts"]
