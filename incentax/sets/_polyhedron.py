"""Polyhedra: inequalities, equalities and bounds."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import block_diag
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from .._checks import as_float, is_poisoning, is_traced, require
from .._compile import compiled
from .._linear import eigh
from ._base import AbstractFace, AbstractStrategySet
from ._box import check_shape_of_array
from ._constraints import LinearConstraints, Pairs, row_norms, Rows
from ._interior import KKTPoint
from ._jacobians import DenseJacobian
from ._kkt import solve_kkt


class PolyhedronFace(AbstractFace):
    """Motions along every active constraint."""

    scale: Float[Array, "*x"]
    relaxation: Float[Array, "*x"]
    degenerate: Int[Array, ""]
    displacement: Float[Array, "*x"]
    free: Bool[Array, " d"]
    at_lower: Bool[Array, " d"]
    taut: Bool[Array, " more"]
    rows: Float[Array, "rows d"]

    def project(self, w: Array) -> Array:
        return self.response(jnp.ones_like(w))(w)

    def multipliers(self, operator_value: Array) -> tuple[Array, Array]:
        found = -operator_value.ravel() @ (self.rows.T @ _pseudo_inverse(self.rows @ self.rows.T))
        equalities = len(self.rows) - len(self.taut)
        return found[:equalities], jnp.where(self.taut, found[equalities:], 0)

    def response(self, diagonal: Array) -> Callable[[Array], Array]:
        own = diagonal.ravel()
        weight = jnp.where(self.free, 1 / jnp.where(self.free, own, 1), 0)
        inverse = _pseudo_inverse((self.rows * weight[None, :]) @ self.rows.T)

        def respond(g: Array) -> Array:
            moved = weight * g.ravel()
            held = weight * ((inverse @ (self.rows @ moved)) @ self.rows)
            return (moved - held).reshape(g.shape)

        return respond

    def carry(
        self, constraints: LinearConstraints, x: Array, operator_value: Array
    ) -> tuple[Array, Array]:
        rows, level = _active(constraints, self.taut)
        onto = self.rows.T @ _pseudo_inverse(self.rows @ self.rows.T)
        bound = jnp.where(self.at_lower, constraints.lower, constraints.upper)
        flat = jnp.where(self.free, x.ravel(), bound)
        multipliers = -operator_value.ravel() @ onto
        moved = flat + onto @ (level - rows @ flat)
        return moved.reshape(x.shape), (multipliers @ rows).reshape(x.shape)


class Polyhedron(AbstractStrategySet):
    """`{x : a x <= b, c x = d, lower <= x <= upper}`.

    **Arguments:**

    - `inequality`: `(a, b)` with `a` of shape `(rows, d)`.
    - `equality`: `(c, d)`, with rows that are linearly independent.
    - `lower`, `upper`: bounds that broadcast to the shape of `x`; infinite when left out.
    - `shape`: of `x`, where it is not flat: `(players, d)` for players who share constraints. Rows
      belong to the flat `x`, player after player. See [`PerPlayer`][] for a set a player.

    **Raises** `ValueError` when shapes do not fit, when a bound or level is NaN, when no point
    satisfies all constraints, or when rows of the equality depend on one another. Under `jit` the
    last two cannot be seen; the residual of what is solved then shows them.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> cap = ix.Polyhedron(inequality=([[1.0, 1.0]], [1.0]), lower=0.0)
        >>> print(cap.project(jnp.array([1.0, 0.5])).round(4))
        [0.75 0.25]
    """

    lower: Float[Array, " d"]
    upper: Float[Array, " d"]
    equality: tuple[Float[Array, "rows d"], Float[Array, " rows"]]
    inequality: tuple[Float[Array, "more d"], Float[Array, " more"]]
    middle: Float[Array, " d"]
    size: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        *,
        inequality: tuple[ArrayLike, ArrayLike] | None = None,
        equality: tuple[ArrayLike, ArrayLike] | None = None,
        lower: ArrayLike = -math.inf,
        upper: ArrayLike = math.inf,
        shape: tuple[int, ...] | None = None,
    ):
        blocks = {
            "inequality": _rows("inequality", inequality),
            "equality": _rows("equality", equality),
        }
        low, high = as_float(lower), as_float(upper)
        if shape is not None:
            low, high = (_flat(side, tuple(shape)) for side in (low, high))
        widths = {name: rows[0].shape[1] for name, rows in blocks.items() if rows is not None}
        widths |= {
            name: bound.shape[0]
            for name, bound in (("lower", low), ("upper", high))
            if bound.ndim == 1
        }
        if len(set(widths.values())) != 1 or low.ndim > 1 or high.ndim > 1:
            raise ValueError(
                "`Polyhedron(...)` needs rows and bounds of one length, that of x, got "
                + (", ".join(f"{name} of {width}" for name, width in widths.items()) or "none")
            )
        size = next(iter(widths.values()))
        self.size = (size,) if shape is None else tuple(shape)
        if math.prod(self.size) != size:
            raise ValueError(
                f"`Polyhedron(shape=...)` needs as many entries as rows have, {size}, got {shape}"
            )
        given = [
            low,
            high,
            *(part for rows in blocks.values() if rows is not None for part in rows),
        ]
        dtype = jnp.result_type(*given)
        empty = jnp.zeros((0, size), dtype), jnp.zeros(0, dtype)
        self.inequality, self.equality = (
            empty if rows is None else (rows[0].astype(dtype), rows[1].astype(dtype))
            for rows in blocks.values()
        )
        low, high = (jnp.broadcast_to(bound.astype(dtype), (size,)) for bound in (low, high))
        rule = "`Polyhedron(lower=..., upper=...)` needs lower <= upper"
        self.lower, self.upper = require(
            (low, high), low <= high, rule, {"lower": low, "upper": high}
        )
        if is_traced(self.lower, self.upper, *self.inequality, *self.equality):
            near = jnp.where(jnp.isfinite(low), low, jnp.where(jnp.isfinite(high), high, 0))
            both = jnp.isfinite(low) & jnp.isfinite(high)
            middle = jnp.where(both, (low + high) / 2, jnp.clip(near, low, high))
            self.middle = _nearest(self._constraints(), middle).x
        else:
            self.middle = jnp.asarray(self._checked_middle(), dtype)

    def _checked_middle(self) -> np.ndarray:
        """The middle of the largest ball inside, by linear programming; refuses an empty set."""
        import scipy.optimize  # noqa: PLC0415 (half a second, for this set alone)

        a, b = (np.asarray(part, float) for part in self.inequality)
        c, d = (np.asarray(part, float) for part in self.equality)
        low, high = np.asarray(self.lower, float), np.asarray(self.upper, float)
        rank = np.linalg.matrix_rank(c) if c.size else 0
        size = low.size
        nowhere = np.full(size, np.nan)
        if is_poisoning() and np.isnan(np.concatenate([low, high, b, d])).any():
            return nowhere
        # Room to every inequality and bound, at most 1.
        norms = np.linalg.norm(a, axis=1, keepdims=True) if a.size else np.zeros((0, 1))
        eye, finite_low, finite_high = np.eye(size), np.isfinite(low), np.isfinite(high)
        thick = high > low
        walls = np.concatenate([a, -eye[finite_low], eye[finite_high]])
        levels = np.concatenate([b, -low[finite_low], high[finite_high]])
        room = np.concatenate([norms, thick[finite_low][:, None], thick[finite_high][:, None]])
        answer = scipy.optimize.linprog(
            np.append(np.zeros(size), -1.0),
            A_ub=np.hstack([walls, room]) if len(walls) else None,
            b_ub=levels if len(walls) else None,
            A_eq=np.hstack([c, np.zeros((len(c), 1))]) if len(c) else None,
            b_eq=d if len(c) else None,
            bounds=[(None, None)] * size + [(0, 1)],
        )
        if answer.status == 2 and is_poisoning():
            return nowhere
        if answer.status == 2:
            raise ValueError(
                "`Polyhedron(...)` needs constraints that some point satisfies, got an empty set "
                f"({len(b)} inequalities, {len(d)} equalities, bounds)"
            )
        if rank < len(c):
            raise ValueError(
                "`Polyhedron(equality=...)` needs rows that are linearly independent, got rank "
                f"{rank} of {len(c)} rows: leave the redundant ones out"
            )
        return np.asarray(answer.x[:size])

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def check_shape(self, owner: str, name: str, x: PyTree) -> None:
        check_shape_of_array(owner, name, x, self.shape)

    def centre(self) -> Array:
        return self.middle.reshape(self.size)

    def constraints(self, x: Array) -> LinearConstraints:
        return jax.tree.map(lambda leaf: leaf.astype(x.dtype), self._constraints())

    def _constraints(self) -> LinearConstraints:
        c, d = self.equality
        return LinearConstraints(self.lower, self.upper, Rows(c), d, *self.inequality)

    def project(self, x: Array) -> Array:
        return _project(self.constraints(x), x.ravel()).reshape(x.shape)

    def displacement(self, x: Array, force: Array) -> Array:
        return x - self.project(x - force)

    def multipliers(self, x: Array, operator_value: Array) -> tuple[Array, Array]:
        point = _nearest(self.constraints(x), (x - operator_value).ravel())
        return point.equality, point.inequality

    def face(self, x: Array, operator_value: Array, step_size: Array | float) -> PolyhedronFace:
        return _face(self.constraints(x), x, x - step_size * operator_value)


def _flat(side: Array, shape: tuple[int, ...]) -> Array:
    """A bound of the flat `x`, given for that or for its shape."""
    if side.shape == (math.prod(shape),):
        return side
    try:
        return jnp.broadcast_to(side, shape).ravel()
    except ValueError:
        raise ValueError(
            "`Polyhedron(shape=...)` needs bounds that broadcast to it, or one an entry, got "
            f"shape={shape} and a bound of shape {side.shape}"
        ) from None


def PerPlayer(sets: Sequence[AbstractStrategySet]) -> Polyhedron:
    """A set a player, for an `x` of shape `(players, d)` whose rows are their strategies.

    **Raises** `ValueError` unless all are of one shape `(d,)`.

    !!! example

        Two households use 3 and 5 units over two hours, at most 4 an hour:

        >>> import incentax as ix, jax.numpy as jnp
        >>> households = ix.PerPlayer([ix.Simplex(2, total=3.0), ix.Polyhedron(
        ...     equality=([[1.0, 1.0]], [5.0]), lower=0.0, upper=4.0)])
        >>> print(households.project(jnp.array([[2.0, 2.0], [9.0, 0.0]])).round(3))
        [[1.5 1.5]
         [4.  1. ]]
    """
    shapes = {strategies.shape for strategies in sets}
    if len(shapes) != 1 or shapes == {None} or len(next(iter(shapes)) or ()) != 1:
        raise ValueError(
            f"`PerPlayer(sets)` needs sets of one shape (d,), got shapes {sorted(map(str, shapes))}"
        )
    parts = [strategies.constraints(strategies.centre()) for strategies in sets]
    dtype = jnp.result_type(*(part.lower for part in parts))
    return Polyhedron(
        inequality=(
            block_diag(*(part.inequality for part in parts)),
            jnp.concatenate([part.inequality_level for part in parts]),
        ),
        equality=(
            block_diag(*(part.equality.dense(dtype) for part in parts)),
            jnp.concatenate([part.equality_level for part in parts]),
        ),
        lower=jnp.concatenate([part.lower for part in parts]),
        upper=jnp.concatenate([part.upper for part in parts]),
        shape=(len(parts), parts[0].lower.size),
    )


def _rows(name: str, block) -> tuple[Array, Array] | None:
    if block is None:
        return None
    try:
        matrix, level = block
    except (TypeError, ValueError):
        raise ValueError(
            f"`Polyhedron({name}=...)` needs a pair (matrix, levels), got {block!r}"
        ) from None
    matrix, level = as_float(matrix), as_float(level)
    if matrix.ndim != 2 or level.shape != matrix.shape[:1]:
        raise ValueError(
            f"`Polyhedron({name}=...)` needs a matrix (rows, d) and levels (rows,), got shapes "
            f"{matrix.shape} and {level.shape}"
        )
    rule = f"`Polyhedron({name}=...)` needs finite numbers"
    matrix = require(matrix, jnp.isfinite(matrix), rule, matrix)
    return matrix, require(level, jnp.isfinite(level), rule, level)


@compiled
def _nearest(constraints: LinearConstraints, v: Array) -> KKTPoint:
    """The projection of `v` with its multipliers, which are not differentiated."""
    constraints, v = jax.lax.stop_gradient((constraints, v))
    # A row's length is of no matter for the set; equal lengths make multipliers comparable.
    norm = row_norms(constraints.inequality)
    scaled = eqx.tree_at(
        lambda c: (c.inequality, c.inequality_level),
        constraints,
        (constraints.inequality / norm[:, None], constraints.inequality_level / norm),
    )
    identity = DenseJacobian(jnp.eye(v.size, dtype=v.dtype))
    point, residual, _ = solve_kkt(
        lambda x: (x - v, identity),
        lambda x: x - v,
        scaled,
        v,
        tol=jnp.sqrt(jnp.finfo(v.dtype).eps),
    )
    # Without a nearest point (an empty set, or v not finite) there is none to return.
    found = residual <= 1e-4 * (1 + jnp.max(jnp.abs(point.x)))
    x = jnp.where(found, point.x, jnp.nan)
    return KKTPoint(x, point.equality, point.inequality / norm)


@jax.custom_jvp
def _project(constraints: LinearConstraints, v: Array) -> Array:
    return _nearest(constraints, v).x


@_project.defjvp
def _project_jvp(primals, tangents):
    constraints, v = primals
    moved, dv = tangents
    x = _project(constraints, v)
    face = _face(constraints, x, v)
    _, (dx, force) = jax.jvp(lambda c: face.carry(c, x, x - v), (constraints,), (moved,))
    return x, dx + face.project(dv - force - dx)


def _face(constraints: LinearConstraints, x: Array, v: Array) -> PolyhedronFace:
    """The face on which the projection of `v`, close to `x`, lies."""
    point = _nearest(constraints, v.ravel())
    pairs = Pairs(constraints, point.x, point.x - v.ravel(), (point.equality, point.inequality))
    at_lower = point.x - pairs.pull <= constraints.lower
    at_upper = point.x - pairs.pull >= constraints.upper
    taut = pairs.push > pairs.room
    free = ~(at_lower | at_upper)
    kept, _ = _active(constraints, taut)
    return PolyhedronFace(
        scale=free.astype(x.dtype).reshape(x.shape),
        relaxation=jnp.zeros_like(x),
        degenerate=pairs.degenerate(jnp.sqrt(jnp.finfo(x.dtype).eps)),
        displacement=x - point.x.reshape(x.shape),
        free=free,
        at_lower=at_lower,
        taut=taut,
        rows=jnp.where(free, kept, 0),
    )


def _active(constraints: LinearConstraints, taut: Array) -> tuple[Array, Array]:
    rows = jnp.where(taut[:, None], constraints.inequality, 0)
    level = jnp.where(taut, constraints.inequality_level, 0)
    c = constraints.equality.dense(rows.dtype)
    return jnp.concatenate([c, rows]), jnp.concatenate([constraints.equality_level, level])


@jax.custom_jvp
def _pseudo_inverse(gram: Array) -> Array:
    """Of a symmetric matrix; rows that depend on one another share their multiplier."""
    if not gram.shape[0]:
        return gram
    values, vectors = eigh(gram)
    cutoff = gram.shape[0] * jnp.finfo(gram.dtype).eps * jnp.max(jnp.abs(values))
    inverse = jnp.where(values > cutoff, 1 / jnp.where(values > cutoff, values, 1), 0)
    return (vectors * inverse[None, :]) @ vectors.T


@_pseudo_inverse.defjvp
def _pseudo_inverse_jvp(primals, tangents):
    # Where the rank stays: rows that depend on one another go on doing so.
    inverse = _pseudo_inverse(*primals)
    return inverse, -inverse @ tangents[0] @ inverse
