"""What a person sees: text, tables and progress; and the one JSON object that a machine reads. All of it is here.

Progress goes to stderr, as bars in a terminal and as a line now and then elsewhere. Rich is imported where it is used.
"""

import contextlib
import functools
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import typer

QUIET_SECONDS = 2.0  # shorter work is not worth a line
FILE_COLUMNS = 200  # a table in a file or a pipe need not break its lines
PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal
# A name or a reply from outside must not move the cursor, colour the terminal or set its title.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class Advance(Protocol):
    """Tells how far the work is: units done, units in all, and numbers to show beside them (``loss=2.31``)."""

    def __call__(self, done: int, total: int, **numbers: float) -> None:
        """Shows the numbers."""


class AdvancePart(Protocol):
    """The same for work in several parts, the part's label first."""

    def __call__(self, label: str, done: int, total: int, **numbers: float) -> None:
        """Shows the numbers."""


class Report:
    """What one command has to say: lines and tables for people, at most one object for machines."""

    def __init__(self, out: TextIO, people: TextIO, as_json: bool) -> None:
        self._out, self._people, self._as_json = out, people, as_json

    def line(self, text: str = "") -> None:
        """Prints one line for people."""
        typer.echo(text.translate(CONTROLS), file=self._people)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints a table for people."""
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns, title=title.translate(CONTROLS), title_justify="left")
        for row in rows:
            table.add_row(*(cell.translate(CONTROLS) for cell in row))
        console = Console(file=self._people, markup=False)
        if not console.is_terminal:
            console.width = FILE_COLUMNS  # rich takes 80 where nobody says
        console.print(table)

    def result(self, fields: dict[str, Any]) -> None:
        """Prints the result for machines, as the last line on stdout and in ASCII, if it was asked for."""
        if self._as_json:
            typer.echo(json.dumps(fields, default=str), file=self._out)


@contextlib.contextmanager
def report(as_json: bool = False) -> Iterator[Report]:
    """Opens a command's report. With `as_json`, everything but the result goes to stderr, whoever prints it.

    Of several processes started by torchrun only the first one speaks on stdout.
    """
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="replace")  # a terminal that cannot show a letter is no reason to lose the rest
    if not is_first_process():
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield Report(nowhere, nowhere, as_json=False)
    elif as_json:
        with contextlib.redirect_stdout(sys.stderr):
            yield Report(out, sys.stderr, as_json=True)
    else:
        yield Report(out, out, as_json=False)


def is_first_process() -> bool:
    """Tells whether this is the process that speaks: the only one, or rank 0 under torchrun and its kin."""
    return os.environ.get("RANK", "0") == "0"


def silence_libraries() -> None:
    """Switches off the progress bars that transformers draws between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextlib.contextmanager
def progress(label: str) -> Iterator[Advance]:
    """Shows the progress of one piece of work with its rate and the time left.

    Example:
        with progress("scenes") as advance:
            advance(10, 100)
    """
    with progress_of_parts() as advance:
        yield functools.partial(advance, label)


@contextlib.contextmanager
def progress_of_parts() -> Iterator[AdvancePart]:
    """Shows the progress of work in several parts, one after another, each under its own label."""
    if not is_first_process():
        yield lambda label, done, total, **numbers: None
    elif sys.stderr.isatty():
        with _bars() as advance:
            yield advance
    else:
        yield _Lines()


@contextlib.contextmanager
def _bars() -> Iterator[AdvancePart]:
    from rich import progress as rich_progress
    from rich.console import Console

    class Rate(rich_progress.ProgressColumn):
        def render(self, task: rich_progress.Task) -> str:
            speed = task.finished_speed or task.speed
            return f"{speed:.1f}/s" if speed else ""

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        Rate(),
        rich_progress.TimeRemainingColumn(compact=True),
        rich_progress.TextColumn("{task.fields[numbers]}", markup=False),
    )
    tasks: dict[str, rich_progress.TaskID] = {}
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bars:

        def advance(label: str, done: int, total: int, **numbers: float) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total, completed=done, numbers="")
            bars.update(tasks[label], completed=done, total=total, numbers=_format(numbers))

        yield advance


class _Lines:
    """Progress where nobody watches a terminal: one plain line every few seconds, none for short work."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._starts: dict[str, tuple[float, int]] = {}
        self._told: set[str] = set()

    def __call__(self, label: str, done: int, total: int, **numbers: float) -> None:
        now = self._clock()
        # A resumed run starts in the middle: its rate must not count what had been done before.
        start, done_before = self._starts.setdefault(label, (now, done))
        is_end = done == total and label in self._told  # of work that had a line before
        if now < self._due.setdefault(label, start + QUIET_SECONDS) and not is_end:
            return
        self._told.add(label)
        self._due[label] = now + PLAIN_SECONDS
        rate = (done - done_before) / max(now - start, 1e-9)
        left = f", {rate:.1f}/s, {_hours((total - done) / rate)} left" if rate > 0 else ""
        fields = f", {_format(numbers)}" if numbers else ""
        typer.echo(f"{label}: {done}/{total}{left}{fields}", err=True)


def _format(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _hours(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
