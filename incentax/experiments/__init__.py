"""Experiments of the sources, by name.

!!! example

    >>> from incentax.experiments import EXPERIMENTS
    >>> sorted(EXPERIMENTS)
    ['charging', 'figure1', 'laws', 'rates', 'table1']
"""

from . import du2025_charging, laws, liu2022_figure1, liu2022_rates, liu2022_table1
from ._protocol import Experiment as Experiment, Report as Report, Table as Table
from ._seeds import Kept as Kept, rows_every as rows_every

EXPERIMENTS = {
    "charging": du2025_charging.EXPERIMENT,
    "figure1": liu2022_figure1.EXPERIMENT,
    "laws": laws.EXPERIMENT,
    "rates": liu2022_rates.EXPERIMENT,
    "table1": liu2022_table1.EXPERIMENT,
}
