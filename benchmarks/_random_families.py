"""Families of random small designs: affine costs, linear constraints, a quadratic objective.

Data are arrays of the problem, so that all instances of one shape share one compilation.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import incentax as ix


@dataclasses.dataclass
class Data:
    """An instance: `z = (theta, x)` has the objective `z' hessian z / 2 + slope z`.

    The strategy set is `lower <= x <= upper + upper_effect theta`, `rows x <= level + level_effect
    theta`, and blocks of `sizes` with sum `total` where there are sizes.
    """

    matrix: np.ndarray
    constant: np.ndarray
    effect: np.ndarray
    hessian: np.ndarray
    slope: np.ndarray
    low: np.ndarray
    high: np.ndarray
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    upper_effect: np.ndarray
    rows: np.ndarray
    level: np.ndarray
    level_effect: np.ndarray
    sizes: tuple[int, ...] = ()
    total: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    eta: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))

    def in_units(self, theta: float, cost: float) -> "Data":
        """The same with `theta` and all costs measured in other units."""
        n, p = self.effect.shape
        z = np.concatenate([np.full(p, 1 / theta), np.ones(n)])
        return dataclasses.replace(
            self,
            matrix=cost * self.matrix,
            constant=cost * self.constant,
            effect=cost * self.effect / theta,
            hessian=cost * self.hessian * z * z[:, None],
            slope=cost * self.slope * z,
            low=theta * self.low,
            high=theta * self.high,
            start=theta * self.start,
            upper_effect=self.upper_effect / theta,
            level_effect=self.level_effect / theta,
            eta=cost * self.eta,
        )

    def cast(self, dtype: str) -> "Data":
        """All arrays rounded to `dtype`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        arrays = {k: np.asarray(v).astype(dtype) for k, v in fields.items() if k != "sizes"}
        arrays["start"] = np.clip(arrays["start"], arrays["low"], arrays["high"])
        return dataclasses.replace(self, **arrays)


def _affine(rng: np.random.Generator, n: int, p: int) -> dict[str, np.ndarray]:
    """A strongly monotone game, not symmetric, and a quadratic objective, often not convex."""
    square, skew = rng.normal(size=(2, n, n))
    matrix = square @ square.T / n + rng.uniform(0, 1) * (skew - skew.T) / 2
    matrix += rng.uniform(0.1, 1) * np.eye(n)
    weight = rng.uniform(0.2, 2, n) * np.where(rng.random(n) < 0.25, -0.5, 1)
    low = -rng.uniform(0.5, 3, p)
    high = low + rng.uniform(2, 5, p)
    price, aim, wish = rng.choice([0.02, 0.3]), rng.uniform(low, high), rng.uniform(-0.5, 1.5, n)
    cross = 0.3 * rng.normal(size=(p, n)) * (rng.random() < 0.5)
    none = np.zeros((0, n))
    return dict(
        matrix=matrix,
        constant=rng.normal(size=n),
        effect=rng.normal(size=(n, p)),
        hessian=np.block([[price * np.eye(p), cross], [cross.T, np.diag(weight)]]),
        slope=np.concatenate([-price * aim, -weight * wish]),
        low=low,
        high=high,
        start=rng.uniform(low, high),
        lower=np.zeros(n),
        upper=np.full(n, np.inf),
        upper_effect=np.zeros((n, p)),
        rows=none,
        level=none[:, 0],
        level_effect=np.zeros((0, p)),
    )


def cournot(rng: np.random.Generator, n: int, p: int) -> Data:
    """Firms with capacities; taxes on one, two or all; minus welfare, damages and revenue."""
    data = _affine(rng, n, p)
    intercept, demand = rng.uniform(6, 12), rng.uniform(0.5, 2)
    unit, convex = rng.uniform(0.5, 6, n), rng.uniform(0, 1, n)
    taxed = np.eye(n)[:, rng.permutation(n)[:p]]
    if rng.random() < 0.5:  # the last tax is on all firms that have none
        taxed[:, -1] = 1 - taxed[:, :-1].sum(1)
    damage, steep = rng.uniform(0, 2, n), rng.choice([0.0, rng.uniform(0, 1)])
    of_x = np.diag(convex) + demand + steep * np.outer(damage, damage)
    revenue = -rng.choice([0.0, rng.uniform(0, 1)]) * taxed.T
    data["matrix"] = np.diag(convex + demand) + demand
    data["constant"] = unit - intercept
    data["effect"] = taxed
    data["hessian"] = np.block([[np.zeros((p, p)), revenue], [revenue.T, of_x]])
    data["slope"] = np.concatenate([np.zeros(p), unit - intercept + damage])
    data["upper"] = rng.uniform(0.5, 5, n)
    data["low"], data["high"] = -rng.choice([0.0, 3.0], p), rng.uniform(2, 10, p)
    data["start"] = rng.uniform(data["low"], data["high"])
    return Data(**data)


def simplices(rng: np.random.Generator, n: int, p: int) -> Data:
    """An affine game on two simplices."""
    return Data(**_affine(rng, n, p), sizes=(n // 2, n - n // 2), total=rng.uniform(0.5, 3, 2))


def quantal(rng: np.random.Generator, n: int, p: int) -> Data:
    """The same with boundedly rational agents."""
    return dataclasses.replace(simplices(rng, n, p), eta=np.array(10 ** rng.uniform(-1.3, 0.3)))


def _polyhedron(rng: np.random.Generator, n: int, p: int) -> dict[str, np.ndarray]:
    """Shared capacities, half of them moving inequalities of any sign."""
    data = _affine(rng, n, p)
    data["constant"] = data["constant"] - rng.uniform(0, 2)
    data["upper"] = rng.uniform(0.5, 3, n)
    rows = rng.uniform(0.2, 1, (2, n)) * np.where(rng.random((2, n)) < 0.2, -1, 1)
    data["rows"] = rows
    data["level"] = np.maximum(rows @ data["upper"], 0.2) * rng.uniform(0.3, 0.9, 2)
    data["level_effect"] = np.zeros((2, p))
    return data


def polyhedron(rng: np.random.Generator, n: int, p: int) -> Data:
    """An affine game on a box with two inequalities."""
    return Data(**_polyhedron(rng, n, p))


def _capacity(rng: np.random.Generator, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`theta` in a box from 0 on: capacities that cost something, and no longer a tax."""
    p = len(data["low"])
    data["high"] = rng.uniform(1, 4, p)
    data["low"] = np.zeros(p)
    data["start"] = rng.uniform(0, data["high"])
    data["effect"] = data["effect"] * (rng.random() < 0.3)
    data["slope"][:p] = rng.uniform(-0.3, 1, p)
    return data


def moving_box(rng: np.random.Generator, n: int, p: int) -> Data:
    """Upper bounds that move with `theta`; at `theta = 0` some of them close."""
    data = _capacity(rng, _affine(rng, n, p))
    data["constant"] = data["constant"] - rng.uniform(0, 3)
    data["upper"] = rng.uniform(0.2, 1, n) * (rng.random(n) > 0.2)
    data["upper_effect"] = rng.uniform(0.2, 1, (n, p)) * (rng.random((n, p)) < 0.6)
    return Data(**data)


def moving_cap(rng: np.random.Generator, n: int, p: int) -> Data:
    """Shared capacities that move with `theta`."""
    data = _capacity(rng, _polyhedron(rng, n, p))
    data["constant"] = data["constant"] - rng.uniform(0, 2)
    data["level"] = 0.3 * data["level"]
    data["level_effect"] = rng.uniform(0, 1, (2, p))
    return Data(**data)


# Name: how to make one, and the shapes (strategies, incentives) that take turns.
FAMILIES = {
    "cournot": (cournot, ((2, 1), (3, 2), (4, 2))),
    "simplices": (simplices, ((5, 1), (6, 2))),
    "polyhedron": (polyhedron, ((2, 1), (3, 2))),
    "moving-box": (moving_box, ((3, 1), (3, 2))),
    "moving-cap": (moving_cap, ((3, 1), (3, 2))),
    "quantal": (quantal, ((5, 1), (6, 2))),
}


def instance(family: str, seed: int, index: int) -> Data:
    """Instance `index` of a family."""
    make, shapes = FAMILIES[family]
    return make(
        np.random.default_rng([seed, *family.encode(), index]), *shapes[index % len(shapes)]
    )


class Affine(eqx.Module):
    """`F(theta, x)`."""

    matrix: jax.Array
    constant: jax.Array
    effect: jax.Array

    def __call__(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        return self.matrix @ x + self.constant + self.effect @ theta


class Own(eqx.Module):
    """Cournot's costs at a given total output."""

    own: jax.Array
    shared: jax.Array
    constant: jax.Array
    effect: jax.Array

    def __call__(self, theta: jax.Array, x: jax.Array, total: jax.Array) -> jax.Array:
        return self.own * x + self.shared * total + self.constant + self.effect @ theta


class Quadratic(eqx.Module):
    """The objective."""

    hessian: jax.Array
    slope: jax.Array

    def __call__(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        z = jnp.concatenate([theta, x])
        return z @ self.hessian @ z / 2 + self.slope @ z


class Moving(eqx.Module):
    """A strategy set as a function of `theta`."""

    lower: jax.Array
    upper: jax.Array
    upper_effect: jax.Array
    rows: jax.Array
    level: jax.Array
    level_effect: jax.Array

    def __call__(self, theta: jax.Array) -> ix.Box | ix.Polyhedron:
        upper = self.upper + self.upper_effect @ theta
        if not len(self.level):
            return ix.Box(self.lower, upper)
        level = self.level + self.level_effect @ theta
        return ix.Polyhedron(inequality=(self.rows, level), lower=self.lower, upper=upper)


def problem_of(family: str, data: Data) -> ix.DesignProblem:
    """The instance as a design problem whose data are arrays."""
    a = {f.name: jnp.asarray(getattr(data, f.name)) for f in dataclasses.fields(data)}
    names = ("lower", "upper", "upper_effect", "rows", "level", "level_effect")
    strategies = Moving(*(a[name] for name in names))
    if not family.startswith("moving"):
        strategies = strategies(0 * a["low"])
    if data.sizes:
        strategies = ix.Simplex(data.sizes, total=a["total"])
    game = ix.Game(Affine(a["matrix"], a["constant"], a["effect"]), strategies)
    if family == "cournot":
        shared = a["matrix"][0, 1]
        own = Own(jnp.diag(a["matrix"]) - shared, shared, a["constant"], a["effect"])
        game = ix.AggregativeGame(own, _total, strategies)
    if family == "quantal":
        game = ix.QuantalResponse(game, a["eta"])
    objective = Quadratic(a["hessian"], a["slope"])
    return ix.DesignProblem(game, objective, ix.Box(a["low"], a["high"]))


def _total(theta: jax.Array, x: jax.Array) -> jax.Array:
    """Total output."""
    del theta
    return x.sum()
