"""What every experiment is: options, a run, a figure, tables, and what was found in words."""

from collections.abc import Callable
from typing import Any, NamedTuple

Report = Callable[[str, float], None]


class Table(NamedTuple):
    """Cells as text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def as_markdown(self) -> str:
        """The same in Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


class Experiment(NamedTuple):
    """An experiment of a source.

    - `about`: one sentence.
    - `options`: a dataclass; each field has a default.
    - `run(options, report)`: the outcome, with its figures in `.summary`, which is JSON;
      `report(what, share done)` is called on the way.
    - `draw(outcome)`: a matplotlib figure. `tables(outcome)`, `words(outcome)`: what was found.
    """

    about: str
    options: type
    run: Callable[[Any, Report], Any]
    draw: Callable[[Any], Any]
    tables: Callable[[Any], list[Table]]
    words: Callable[[Any], list[str]]
