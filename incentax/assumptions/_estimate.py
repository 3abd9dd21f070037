"""What is known of a constant, and how."""

import math
from typing import NamedTuple


class Estimate(NamedTuple):
    """A constant between `low` and `high`; exact where they meet.

    A value met at samples bounds a least constant from above and a largest one from below: the
    other end is then infinite.
    """

    low: float
    high: float

    @property
    def is_exact(self) -> bool:
        """Whether both ends are the same number."""
        return self.low == self.high

    @property
    def known(self) -> float:
        """The finite end, the upper one where both are."""
        return self.high if math.isfinite(self.high) else self.low

    def scaled(self, factor: float) -> "Estimate":
        """Of `factor >= 0` times the constant."""
        return Estimate(self.low * factor, self.high * factor) if factor > 0 else exact(0.0)

    def __str__(self) -> str:
        if self.low != self.low or self.high != self.high or (self.low, self.high) == UNKNOWN:
            return "unknown"
        if self.is_exact:
            return f"{self.low:.4g} (exact)"
        if not math.isfinite(self.high):
            return f">= {self.low:.4g} (sampled)"
        if not math.isfinite(self.low):
            return f"<= {self.high:.4g} (sampled)"
        return f"{self.low:.4g} to {self.high:.4g}"


def exact(value: float) -> Estimate:
    """Known without error."""
    return Estimate(float(value), float(value))


def largest(values, is_exact: bool) -> Estimate:
    """A largest value: met at samples it is a lower bound."""
    most = float(max(values))
    return exact(most) if is_exact else Estimate(most, math.inf)


def least(values, is_exact: bool) -> Estimate:
    """A least value: met at samples it is an upper bound."""
    fewest = float(min(values))
    return exact(fewest) if is_exact else Estimate(-math.inf, fewest)


UNKNOWN = Estimate(-math.inf, math.inf)
