"""What a city costs: CPU seconds and memory of every stage, by size.

    python city.py [--data FOLDER] [--networks ...] [--cities 8 11 14 15] [--tolls 100] [--steps 0]
                   [--demand 1.0] [--most N] [--crossings] [--out FILE]

`--data`: a folder of the TransportationNetworks collection (`NAME_net.tntp`, `NAME_trips.tntp`).
Each network runs in a process of its own; a stage that compiles is run once before it is timed, and
the time of that first run stands beside. `--crossings`: route choice at crossings, among links that
lead nearer at the costs of user equilibrium, in place of paths. `exponent` is the slope of log
seconds of one product over log entries of the incidence, over all networks of 10^5 entries to 10^6
paths.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

NETWORKS = ("SiouxFalls", "Anaheim", "Barcelona", "Winnipeg", "ChicagoSketch", "berlin-center")
# Minutes a cent and minutes a mile, as the source of Chicago weighs them.
WEIGHTS = {"ChicagoSketch": {"toll_weight": 0.02, "distance_weight": 0.04}}
# Networks of which paths are not found here: that takes too long for a comparison.
LARGE = ("berlin-center",)
# Paths a pair at each of two equilibria, where streets have as many ties as in a generated city;
# entries up to which tolls are designed.
MOST, DESIGNED = 200, 8_000_000


def stages(
    name: str,
    data: str | None,
    tolls: int,
    steps: int,
    times: float,
    most: int | None,
    crossings: bool,
) -> dict:
    """CPU seconds of every stage of one network, and what was found, at so many times its trips."""
    import jax  # noqa: PLC0415  # each process has its own

    import incentax as ix  # noqa: PLC0415

    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    found: dict = {"network": name, "demand": times, "seconds": {}, "first": {}}

    def timed(stage, function, twice=False):
        for key in ("first", "seconds") if twice else ("seconds",):
            began = time.process_time()
            result = jax.block_until_ready(function())
            found[key][stage] = round(time.process_time() - began, 4)
        return result

    ix.traffic.assign(*ix.traffic.generate_city(3))  # numba compiles, or loads what it has
    if name.startswith("city "):
        size = int(name.split()[1])
        network, demand = ix.traffic.generate_city(size, zones=min(size * size, 8 * size))
    else:
        folder = Path(data or ".")
        files = [folder / f"{name}_{kind}.tntp" for kind in ("net", "trips")]
        network, demand = timed(
            "read", lambda: ix.traffic.read_tntp(*files, **WEIGHTS.get(name, {}))
        )
    demand = ix.traffic.Demand(demand.pairs, times * demand.trips, times * demand.within_zones)
    found |= {"links": network.number_of_links, "pairs": len(demand.trips)}
    user = timed("user equilibrium, gap 1e-6", lambda: ix.traffic.assign(network, demand))
    found["beckmann"], found["user"] = user.beckmann, user.total_travel_time
    system = timed(
        "system optimum, gap 1e-6",
        lambda: ix.traffic.assign(network, demand, objective="system"),
    )
    found["system"] = system.total_travel_time
    if crossings:
        found |= _at_crossings(ix, timed, network, demand, user.costs)
    if crossings or name in LARGE:
        return found | {"peak_gb": _peak()}
    most = most or (MOST if name.startswith("city ") else 1000)
    paths = timed("paths", lambda: ix.traffic.generate_paths(network, demand, most=most))
    found |= {"paths": paths.number_of_paths, "entries": int(paths.links.size)}
    links = ix.traffic.most_congested(network, user.flows, min(tolls, network.number_of_links))
    instance = timed(
        "routing game", lambda: ix.problems.network_tolls(network, demand, links, paths=paths)
    )
    problem, theta = instance.problem, instance.theta0
    game = problem.game
    found |= _logit(ix, jax, timed, network, demand, paths)
    if steps and paths.links.size <= DESIGNED:
        solved = timed(
            "tolls", lambda: ix.design(problem, theta, steps=steps, throw=False), twice=True
        )
        reached = np.minimum.accumulate(np.asarray(solved.history.objective))
        best, number = float(solved.objective), len(reached)
        found["tolls"] = {
            "links": len(links),
            "objective": best,
            "without": float(game.total_travel_time(None, instance_flows(ix, game, theta))),
            "steps": number,
            "seconds to 1e-4": _until(reached, best, 1e-4, found["seconds"]["tolls"]),
            "seconds to 1e-6": _until(reached, best, 1e-6, found["seconds"]["tolls"]),
        }
    return found | {"peak_gb": _peak()}


def instance_flows(ix, game, theta):
    """Path shares at logit equilibrium."""
    return ix.traffic.logit_equilibrium(game, theta).x


def _logit(ix, jax, timed, network, demand, paths) -> dict:
    """Logit equilibrium, its derivative by every link's toll, and one product, in both widths."""
    import jax.numpy as jnp  # noqa: PLC0415

    game = ix.traffic.RoutingGame(network, demand, paths, eta=1.0)
    zero = jnp.zeros(network.number_of_links)
    found = timed(
        "logit equilibrium to 1e-12", lambda: ix.traffic.logit_equilibrium(game, zero), twice=True
    )
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(zero, 10.0))
    timed("hypergradient, all links", lambda: ix.hypergradient(problem, zero, found.x), twice=True)
    incidence = game.flows.incidence
    product = jax.jit(lambda x: incidence.along_paths(incidence.over_links(x)))
    for name, dtype in (("float64", jnp.float64), ("float32", jnp.float32)):
        x = found.x.astype(dtype)
        jax.block_until_ready(product(x))

        def ten(x=x):
            for _ in range(10):
                jax.block_until_ready(product(x))

        timed(f"10 products there and back, {name}", ten)
    return {"logit": float(game.total_travel_time(None, found.x)), "newton": int(found.steps)}


def _at_crossings(ix, timed, network, demand, costs) -> dict:
    """The same without paths."""
    import jax.numpy as jnp  # noqa: PLC0415

    game = timed(
        "Markovian game",
        lambda: ix.traffic.MarkovianGame(network, demand, eta=1.0, nearer_at=costs),
    )
    zero = jnp.zeros(network.number_of_links)
    found = timed("Markovian equilibrium", lambda: ix.solve_equilibrium(game, zero), twice=True)
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(zero, 10.0))
    timed("hypergradient, all links", lambda: ix.hypergradient(problem, zero, found.x), twice=True)
    return {"markovian": float(game.total_travel_time(None, found.x)), "newton": int(found.steps)}


def _until(reached: np.ndarray, best: float, share: float, seconds: float) -> float:
    """Seconds, at the mean of a step, until within a share of the best."""
    step = int(np.argmax(reached <= best * (1 + share))) + 1
    return round(seconds * step / len(reached), 2)


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3)


def exponent(rows: list[dict]) -> float | None:
    """Of the seconds of a product by the number of entries."""
    stage = "10 products there and back, float64"
    points = [
        (row["entries"], row["seconds"][stage])
        for row in rows
        if row.get("entries", 0) >= 1e5 and row["paths"] <= 1e6
    ]
    if len(points) < 2:
        return None
    return float(np.polyfit(*np.log(np.array(points).T), 1)[0])


def main() -> None:
    """Every network in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--cities", nargs="*", type=int, default=[8, 11, 14, 15])
    parser.add_argument("--tolls", type=int, default=100)
    parser.add_argument("--steps", type=int, default=0, help="of the designer; 0: no design")
    parser.add_argument("--demand", type=float, default=1.0, help="times the trips of the data")
    parser.add_argument("--most", type=int, help="paths a pair at each equilibrium")
    parser.add_argument("--crossings", action="store_true", help="without a list of paths")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        asked = (options.data, options.tolls, options.steps, options.demand, options.most)
        print(json.dumps(stages(options.one, *asked, options.crossings)))
        return
    names = [f"city {size}" for size in options.cities]
    names += list(options.networks) if options.data else []
    rows = []
    for name in names:
        command = [sys.executable, __file__, "--one", name, "--tolls", str(options.tolls)]
        command += ["--steps", str(options.steps), "--demand", str(options.demand)]
        command += ["--data", options.data] if options.data else []
        command += ["--most", str(options.most)] if options.most else []
        command += ["--crossings"] if options.crossings else []
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        row = json.loads(ran.stdout) if ran.returncode == 0 else {"network": name}
        row |= {} if ran.returncode == 0 else {"failed": ran.stderr[-500:]}
        rows.append(row)
        print(json.dumps(row), flush=True)
    summary = {"rows": rows, "exponent": exponent(rows)}
    print(f"exponent: {summary['exponent']}")
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
