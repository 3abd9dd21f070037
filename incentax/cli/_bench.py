"""The command that sets methods side by side."""

from pathlib import Path

from .. import bench as benches, plots
from .._environment import environment
from .._files import writable_folder, write_json, write_text
from ._show import console, progress, show


def bench(
    *,
    problems: tuple[str, ...] = ("quick",),
    methods: tuple[str, ...] = ("installed",),
    repeat: int = 1,
    seconds: float = 300.0,
    megabytes: float = 4000.0,
    certified: bool = False,
    install: bool = False,
    out: Path = Path("results/bench"),
    resume: bool = False,
) -> int:
    """Methods side by side over problems with known answers: bench.json, bench.md and bench.png.

    Every method solves every problem in a process of its own; its answer is judged at the
    equilibrium solved anew.

    Parameters
    ----------
    problems
        "quick", "all", kinds, names, or how names begin.
    methods
        "installed" (what needs no other package), "all", or names.
    repeat
        How often each problem is solved again once all is compiled; the median counts.
    seconds
        Limit of each process.
    megabytes
        The same for its memory.
    certified
        Examine every answer with `ix.certify` too.
    install
        Make an environment, in the user's cache folder, for every method that needs one.
    out
        Folder of the results.
    resume
        Go on with the rows that lie in it.
    """
    for name, number in {"repeat": repeat, "seconds": seconds, "megabytes": megabytes}.items():
        if not number > 0:
            raise ValueError(f"`--{name}` needs a number > 0, got {number}")
    chosen_problems = benches.problems_named(problems)
    chosen_methods = benches.methods_named(methods)
    folder = writable_folder(out)
    plots.new_figure(1, 1)
    with progress() as report:
        rows = benches.run(
            chosen_problems,
            chosen_methods,
            folder,
            report=report,
            repeat=repeat,
            limits=benches.Limits(seconds, megabytes),
            install=install,
            resume=resume,
            certified=certified,
        )
    tables, words = benches.tables(rows), benches.words(rows)
    plots.save(benches.draw(rows), folder / "bench.png")
    write_text(folder / "bench.md", "\n".join(table.as_markdown() for table in tables))
    write_json(folder / "bench.json", {"environment": environment(), "rows": rows})
    show(tables, words)
    console().print(f"Wrote bench.json, bench.md and bench.png to {folder}")
    return 0
