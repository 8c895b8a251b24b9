"""Progress of long work, on stderr: in a terminal by rich, in a notebook by tqdm."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Tells people, on stderr, what is being done and how far it is.

    Args:
        console: where to; None: stderr.
        quiet: say nothing; warnings then come as Python's.

    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True, quiet=quiet)
        self._quiet = quiet

    @property
    def shows(self) -> bool:
        """True unless it is quiet."""
        return not self._quiet

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that people should not overlook."""
        if self._quiet:
            warnings.warn(text, stacklevel=2)
            return
        self.console.print(
            f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Callable[[int], object]]:
        """A progress bar; the value is a function that takes how much more was done."""
        if self._quiet:
            yield lambda done: None
        elif self.console.is_jupyter:
            from tqdm.auto import tqdm

            with warnings.catch_warnings():  # without widgets it is a line of text, and says so
                warnings.simplefilter("ignore")
                bar = tqdm(total=total, desc=description, file=sys.stderr)
            with bar:
                yield bar.update
        else:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self.console) as progress:
                task = progress.add_task(description, total=total)
                yield lambda done: progress.advance(task, done)
