"""Step sizes `k -> value` and the presets of the theorems."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from . import _checks


class Power(eqx.Module):
    """`c / (k + 1)^p`, made by [`power`][]."""

    coefficient: Float[Array, ""]
    exponent: Float[Array, ""]

    def __call__(self, step: ArrayLike) -> Float[Array, ""]:
        count = jnp.asarray(step).astype(self.exponent.dtype) + 1
        return self.coefficient * count ** (-self.exponent)


class StepSizes(NamedTuple):
    """The three schedules of a scheme: designer (alpha), play (beta) and mixing (nu)."""

    design: Power
    play: Power
    mixing: Power


def power(coefficient: ArrayLike, exponent: ArrayLike) -> Power:
    """`c / (k + 1)^p` as a function of the step `k = 0, 1, ...`.

    **Raises** `ValueError` unless `c >= 0` and `p >= 0`.

    !!! example

        >>> import incentax as ix
        >>> float(ix.schedules.power(1.0, 0.5)(3))
        0.5
    """
    return Power(
        _checks.require_positive("power", "coefficient", coefficient, strictly=False),
        _checks.require_positive("power", "exponent", exponent, strictly=False),
    )


def theorem_5_4(alpha: ArrayLike = 1.0, beta: ArrayLike = 1.0) -> StepSizes:
    """Unconstrained games: `alpha / (k+1)`, `beta / (k+1)^(2/3)`, no mixing.

    Both gaps are `O(k^(-2/3))` (Liu et al. 2022, Theorem 5.4). The constants that the theorem
    allows are far below what works in practice; the defaults are neither.

    !!! example

        >>> import incentax as ix
        >>> round(float(ix.schedules.theorem_5_4(beta=8.0).play(7)), 6)
        2.0
    """
    return StepSizes(power(alpha, 1.0), power(beta, 2 / 3), power(0.0, 0.0))


def theorem_5_5(alpha: ArrayLike = 1.0, beta: ArrayLike = 1.0, nu: ArrayLike = 1.0) -> StepSizes:
    """Simplices: `alpha / (k+1)^(1/2)`, `beta / (k+1)^(2/7)`, `nu / (k+1)^(4/7)`.

    Both gaps are `O(k^(-2/7))` (Liu et al. 2022, Theorem 5.5).

    !!! example

        >>> import incentax as ix
        >>> round(float(ix.schedules.theorem_5_5(nu=0.5).mixing(0)), 6)
        0.5
    """
    return StepSizes(power(alpha, 1 / 2), power(beta, 2 / 7), power(nu, 4 / 7))


def setting(
    name: Literal["A", "B", "C", "D"],
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
    nu: ArrayLike = 1.0,
) -> StepSizes:
    """The four settings compared in Liu et al. (2022), section 7.

    | setting | alpha | beta | nu |
    |---|---|---|---|
    | A (Theorem 5.5) | 1/2 | 2/7 | 4/7 |
    | B | 1/2 | 1 | 4/7 |
    | C | 1 | 1 | 1 |
    | D | 1/2 | 2/7 | no mixing |

    **Raises** `ValueError` for another name.

    !!! example

        >>> import incentax as ix
        >>> float(ix.schedules.setting("D").mixing(0))
        0.0
    """
    if name == "A":
        return theorem_5_5(alpha, beta, nu)
    if name == "B":
        return StepSizes(power(alpha, 1 / 2), power(beta, 1.0), power(nu, 4 / 7))
    if name == "C":
        return StepSizes(power(alpha, 1.0), power(beta, 1.0), power(nu, 1.0))
    if name == "D":
        return StepSizes(power(alpha, 1 / 2), power(beta, 2 / 7), power(0.0, 0.0))
    raise ValueError(f"`setting(name)` needs one of 'A', 'B', 'C', 'D', got {name!r}")
