"""Descriptions tell what differs, and nothing that does not: they are compared across processes."""

import functools
import json
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix
from incentax._description import described, differences


def captures(value):
    def cost(x):
        return x * value

    return cost


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate


class Called(eqx.Module):
    rate: jax.Array
    kind: str = eqx.field(static=True, default="a")

    def __call__(self, x):
        return self.rate * x


class Again(eqx.Module):
    rate: jax.Array
    kind: str = eqx.field(static=True, default="a")

    def __call__(self, x):
        return self.rate * x + 1


class Attribute:
    rate = 1.0


class OtherAttribute:
    rate = 2.0


OtherAttribute.__qualname__ = "Attribute"
Again.__qualname__ = Again.__name__ = "Called"


def twice(function):
    @functools.wraps(function)
    def both(x):
        return 2 * function(x)

    return both


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (captures(1.0), captures(2.0)),
        (captures(jnp.ones(9)), captures(jnp.ones(9).at[3].set(2.0))),
        (captures(np.ones(9)), captures(np.ones(9, np.float32))),
        (jax.jit(captures(1.0)), jax.jit(captures(2.0))),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (Called(jnp.ones(2)), Called(jnp.ones(2), "b")),
        (Called(jnp.ones(2)), Called(2 * jnp.ones(2))),
        (Called(jnp.ones(2)).__call__, Called(2 * jnp.ones(2)).__call__),
        (Slotted(1.0), Slotted(2.0)),
        (optax.adam(0.1), optax.adam(0.2)),
        (optax.adam(0.1, b1=0.8), optax.adam(0.1)),
        (optax.adam(ix.schedules.power(1.0, 0.5)), optax.adam(ix.schedules.power(1.0, 0.6))),
        (jax.random.key(0), jax.random.key(1)),
        (1, 1.0),
        (True, 1),
        ({1, 2}, {1, 3}),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x, *, by=1: x + by, lambda x, *, by=2: x + by),
        (twice(captures(1.0)), twice(captures(2.0))),
        (twice(captures(1.0)), captures(1.0)),
        (ix.Box(0.0, 1.0), ix.Box(0.0, 2.0)),
        ([1, 1], [1]),
        ([1, 1], (1, 1)),
        ({1: 2}, {"1": 2}),
        (range(3), range(4)),
        (np.array(["a", None] * 3, object), np.array(["b", None] * 3, object)),
        (Called(jnp.ones(2)), Again(jnp.ones(2))),
        (np, jnp),
        (Attribute(), OtherAttribute()),
        (jax.random.key(0), jax.random.key(0, impl="rbg")),
    ],
)
def test_what_differs_is_told(one, other):
    assert differences(described(it=one), described(it=other))
    assert not differences(described(it=one), described(it=one))


RATE = 1.0


def uses_a_global(x):
    return [x * RATE for _ in range(2)]


def test_a_global_value_that_a_function_uses_is_a_part_of_it(monkeypatch):
    before = described(it=uses_a_global)
    assert not differences(before, described(it=uses_a_global))
    monkeypatch.setitem(globals(), "RATE", 2.0)
    assert differences(before, described(it=uses_a_global)) == ["it.RATE was 1.0 and is 2.0"]


_SCRIPT = """
import sys, json, functools
import jax, jax.numpy as jnp, optax
import incentax as ix
from incentax._description import described

class Thing:
    pass


things = [object(), Thing(), (one for one in ()), property(), jnp.sin, len]
kinds = {"road", "rail", "sea", "air"}
game = ix.Game(lambda theta, x: x - theta if "sea" in {"sea", "land", "air"} else x, ix.Reals())
problem = ix.DesignProblem(game, jax.jit(lambda theta, x: jnp.sum(x)), ix.Box(jnp.zeros(2), 5.0))
scheme = ix.DesignAndPlay(optax.adam(0.1), play_step=0.5, feedback=ix.noise.Gaussian(0.1))
instance = ix.problems.emission_tax(n=3)
ready = instance.problem, instance.schemes
print(json.dumps(described(a=problem, b=scheme, c=kinds, d=ready, e=things)))
"""


def test_another_process_describes_the_same_in_the_same_words():
    told = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _SCRIPT],
                env={"PYTHONHASHSEED": seed, "PATH": ""},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert differences(*told) == []
    assert not any(" at 0x" in line for line in told[0].values())
