"""Experiments of the sources, by name.

!!! example

    >>> from incentax.experiments import EXPERIMENTS
    >>> sorted(EXPERIMENTS)
    ['charging', 'figure1', 'rates', 'table1']
"""

from . import du2025_charging, liu2022_figure1, liu2022_rates, liu2022_table1
from ._protocol import Experiment as Experiment, Report as Report, Table as Table

EXPERIMENTS = {
    "charging": du2025_charging.EXPERIMENT,
    "figure1": liu2022_figure1.EXPERIMENT,
    "rates": liu2022_rates.EXPERIMENT,
    "table1": liu2022_table1.EXPERIMENT,
}
