"""Progress of long work, on stderr."""

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
    """Tells people, on stderr, what is being done and how far it is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that people should not overlook."""
        self.console.print(
            f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Callable[[int], object]]:
        """A progress bar; the value is a function that takes how much more was done."""
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


@contextmanager
def no_bar(description: str, total: int) -> Iterator[Callable[[int], object]]:
    """In place of :meth:`Reporter.bar`, where nothing is to be shown."""
    yield lambda done: None
