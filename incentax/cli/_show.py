"""What a terminal shows: tables, sentences, a progress bar."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable

from ..experiments import Report, Table

# A column that is as wide, or wider, holds texts.
_TEXT = 40


def console(stderr: bool = False) -> Console:
    """Where to print; made anew, for standard output may have changed."""
    return Console(soft_wrap=True, stderr=stderr)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One table; of more than two columns as many side by side as the terminal has room for, the
    others below, each time behind the first one: no number is broken, long texts are."""
    cells = [columns, *rows]
    widths = [max(len(row[place]) for row in cells) + 3 for place in range(len(columns))]
    widths = [min(width, _TEXT) for width in widths]
    parts, room = [[0]], console().width - widths[0] - 1
    left = room
    for place in range(1, len(columns)):
        if widths[place] > left and len(parts[-1]) > 1:
            parts.append([0])
            left = room
        parts[-1].append(place)
        left -= widths[place]
    for number, part in enumerate(parts):
        table = RichTable(title=None if number else title, title_justify="left")
        for place in part:
            table.add_column(columns[place], no_wrap=widths[place] < _TEXT, overflow="fold")
        for row in rows:
            table.add_row(*[row[place] for place in part])
        console().print(table)


def show(tables: list[Table], words: list[str]) -> None:
    """Tables, then sentences."""
    for table in tables:
        show_table(*table)
    for sentence in words:
        console().print(f"- {sentence}", highlight=False)


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar; gives the function that moves it."""
    with Progress(console=console()) as bar:
        task = bar.add_task("starting", total=1.0)

        def report(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        yield report
