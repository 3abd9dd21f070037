"""What equations on a piece leave free, against the pseudo-inverse."""

import numpy as np
import pytest

from incentax.design.accurate._tangent import Equations

_RNG = np.random.default_rng(0)


def _rows(name):
    if name == "many":
        return _RNG.normal(size=(250, 254)) + 20 * np.eye(250, 254, 4)
    if name == "many, said twice":
        rows = _RNG.normal(size=(250, 254)) + 20 * np.eye(250, 254, 4)
        return np.concatenate([rows[:249], rows[:1]])
    rows = _RNG.normal(size=(7, 10))
    rows[2] = 0
    rows[2, 5] = 3.0  # one unknown is held
    if name == "said twice":
        rows[4] = rows[1] - 2 * rows[3]
    if name == "held twice":
        rows[4] = 0
        rows[4, 5] = -1.0
    if name == "the last unknowns do not answer":
        rows[:, 9] = 0
    if name == "nearly singular":
        rows[:, 9] = rows[:, 8] + 1e-12 * rows[:, 9]
    if name == "rounded":  # of single precision
        rows[4] = np.float32(rows[1] - 2 * rows[3])
    if name == "nothing is free":
        return rows[:, 3:]
    return rows[:4] if name == "few" else rows


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("plain", 7),
        ("many", 250),
        ("many, said twice", 249),
        ("few", 4),
        ("nothing is free", 7),
        ("said twice", 6),
        ("held twice", 6),
        ("the last unknowns do not answer", 7),
        ("nearly singular", 7),
        ("rounded", 6),
    ],
)
def test_motions_and_multipliers(name, rank):
    eps = 1e-7 if name == "rounded" else 2.2e-16
    near = 1e-5 if name == "rounded" else 1e-9
    rows = _rows(name)
    equations, inverse = Equations(rows, eps), np.linalg.pinv(rows, 1e-6)
    basis, slope = equations.basis(), _RNG.normal(size=rows.shape[1])
    assert basis.shape == (rows.shape[1], rows.shape[1] - rank)
    np.testing.assert_allclose(rows @ basis, 0, atol=near)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    level = rows @ slope
    np.testing.assert_allclose(equations.onto(level), inverse @ level, atol=near)
    with pytest.raises(ValueError, match="needs finite numbers"):
        Equations(np.where(rows == rows[0, 0], np.nan, rows), eps)
    left = slope + rows.T @ equations.multipliers(slope)
    np.testing.assert_allclose(left, basis @ (basis.T @ slope), atol=near)
