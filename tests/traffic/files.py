"""The networks beside the project, where they are there."""

from pathlib import Path

import pytest

import incentax as ix

_FOLDER = Path(__file__).parents[3] / "shared" / "data" / "tntp"
# Of Chicago, minutes a cent and minutes a mile: generalised costs as the source has them.
_WEIGHTS = {"toll_weight": 0.02, "distance_weight": 0.04}


def stored(name: str) -> tuple[ix.traffic.Network, ix.traffic.Demand]:
    """A network of the collection; the test is left out where there is none."""
    net = _FOLDER / f"{name}_net.tntp"
    if not net.exists():
        pytest.skip(f"no {net.name} here")
    weights = _WEIGHTS if name == "ChicagoSketch" else {}
    network, demand = ix.traffic.read_tntp(net, _FOLDER / f"{name}_trips.tntp", **weights)
    assert demand is not None
    return network, demand
