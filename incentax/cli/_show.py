"""What a terminal shows: tables, sentences, a progress bar."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable

from ..experiments import Report, Table


def console(stderr: bool = False) -> Console:
    """Where to print; made anew, for standard output may have changed."""
    return Console(soft_wrap=True, stderr=stderr)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One table."""
    table = RichTable(title=title, title_justify="left")
    wide = len(columns) > 2  # of two columns either may be the longer one
    for column in columns:
        table.add_column(column, no_wrap=wide and column == columns[0], overflow="fold")
    for row in rows:
        table.add_row(*row)
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
