"""Households that move their demand for electricity between hours, and hourly tariffs."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Simplex
from ._entry import design, equilibrium

# What a mean load costs in all, what moving a load costs, and what a tariff costs its regulator.
_SLOPE, _TASTE, _PRICE = 1.0, 2.0, 0.05


def _wishes(households, hours, low):
    """Loads by household and hour, highest in the evening; `low` at night, less than 0 where
    households would sell."""
    random = np.random.default_rng(households + 100 * hours)
    peak = low + 2 * np.exp(-((np.arange(hours) - 0.75 * hours) ** 2) / (0.1 * hours**2))
    return peak * random.uniform(0.8, 1.2, (households, hours))


def _loads(households, hours, low):
    """The game: `F_ih = theta_h + slope * mean load_h + taste (x_ih - wish_ih)`.

    Each household's loads add up to those it wishes for.
    """
    wish = jnp.asarray(_wishes(households, hours, low))

    def operator(tariff, x):
        load = x.reshape(wish.shape)
        rate = (0.0 if tariff is None else tariff) + _SLOPE * load.mean(axis=0)
        return (rate[None] + _TASTE * (load - wish)).ravel()

    return Game(operator, Simplex(households * [hours], total=wish.sum(axis=1)))


def _tariffs(households, hours, low):
    """Loads that are even over the day, by tariffs that are small."""

    def objective(tariff, x):
        mean = x.reshape(households, hours).mean(axis=0)
        return (jnp.sum(mean**2) + _PRICE * jnp.sum(tariff**2)) / 2

    game = _loads(households, hours, low)
    return DesignProblem(game, objective, Box(jnp.full(hours, -5.0), 5.0)), jnp.zeros(hours)


def _free_load(wish):
    """Mean loads without a tariff, where every load is positive: `(taste W + slope mean W) /
    (slope + taste)` for mean wishes `W`."""
    mean = wish.mean(axis=0)
    return (_TASTE * mean + _SLOPE * mean.mean()) / (_SLOPE + _TASTE)


def _least(households, hours, low):
    """The best known: the least where every load is positive.

    A tariff lowers the load of its hour by its distance from the mean tariff over `slope + taste`.
    """
    load, fall = _free_load(_wishes(households, hours, low)), 1 / (_SLOPE + _TASTE)
    tariff = fall * (load - load.mean()) / (fall**2 + _PRICE)
    return float((np.sum((load - fall * tariff) ** 2) + _PRICE * np.sum(tariff**2)) / 2)


for _n, _hours in ((1, 2), (3, 4), (20, 6), (80, 24)):
    design(f"electricity, {_n} household{'s' * (_n > 1)}, {_hours} hours", _least(_n, _hours, 3.0))(
        partial(_tariffs, _n, _hours, 3.0)
    )
# Nobody uses any at night: by the designer, and by 20 runs of SLSQP from random tariffs, a quarter
# of which come there and none below.
design("electricity, 20 households, 6 hours, none at night", 0.629877099876)(
    partial(_tariffs, 20, 6, -0.5)
)


def _loads_without(households, hours):
    """Every household by itself: its wish, less what the rate of an hour is above the mean."""
    wish = _wishes(households, hours, 3.0)
    rate = _SLOPE * _free_load(wish)
    return (wish - (rate - rate.mean()) / _TASTE).ravel()


for _n, _hours in ((3, 4), (20, 6), (80, 24)):

    @equilibrium(f"loads of {_n} households in {_hours} hours", partial(_loads_without, _n, _hours))
    def loads(households=_n, hours=_hours):
        game = _loads(households, hours, 3.0)
        return game, game.strategies(None).centre()
