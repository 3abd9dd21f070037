"""Total travel time under tolls and under wider links, in shares of user equilibrium.

After the tables of J. Li, J. Yu, Q. Wang, B. Liu, Z. Wang, Y. Nie, *Differentiable bilevel
programming for Stackelberg congestion games*, arXiv 2209.07618: networks of the collection
TransportationNetworks; on the links with the largest delays, tolls of at most one mean trip's time,
or capacities of at most twice what is there at a price. Route choice has a little dispersion in the
design; every answer is judged without any, on the whole network.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _measure import report

import incentax as ix

jax.config.update("jax_enable_x64", True)
NETWORKS = "Braess", "SiouxFalls", "Barcelona", "ChicagoSketch"
# Dispersion in mean trips' times; what doubling all links costs, in total travel time.
DISPERSION, PRICE, GAP = 0.01, 0.1, 1e-9
# How often paths are added at most, and the share of trips with a better path that counts as none.
ROUNDS, MISSING = 3, 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME_net.tntp files")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--links", type=int, default=20)
    options, _ = parser.parse_known_args()
    report("network_design", [row for name in options.networks for row in rows(options, name)], {})


def rows(options, name):
    files = (options.data / f"{name}_{part}.tntp" for part in ("net", "trips"))
    network, demand = ix.traffic.read_tntp(*files)
    user = ix.traffic.assign(network, demand, gap=GAP)
    system = ix.traffic.assign(network, demand, objective="system", gap=GAP)
    trip = user.total_travel_time / float(np.sum(demand.trips))
    count = min(options.links, network.number_of_links)
    links = np.sort(ix.traffic.most_congested(network, user.flows, count))
    paths = ix.traffic.generate_paths(network, demand, start=user)
    known = {"network": name, "links": count, "paths": paths.number_of_paths}
    known["system_optimum"] = system.total_travel_time / user.total_travel_time

    clock, theta = time.perf_counter(), jnp.zeros(count)
    for _ in range(ROUNDS):  # tolls make other paths attractive
        instance = ix.problems.network_tolls(
            network, demand, links, paths=paths, eta=DISPERSION * trip, max_toll=trip
        )
        found = ix.design(instance.problem, theta, throw=False)
        theta, game = found.theta, instance.problem.game
        known["paths"] = paths.number_of_paths
        costs = np.array(game.link_times(game.link_flows(found.x)))
        costs[links] += np.asarray(theta)
        paths, missing = ix.traffic.grow_paths(network, demand, paths, costs)
        if missing < MISSING:
            break
    tolls = dict(zip(links.tolist(), found.theta.tolist()))
    tolled = ix.traffic.assign(network, demand, tolls=tolls, gap=GAP, start=user)
    yield known | answer("tolls", found, tolled, user, clock)

    clock = time.perf_counter()
    game = ix.traffic.RoutingGame(
        network, demand, paths, eta=DISPERSION * trip, tolled_links=[], widened_links=links
    )
    room = jnp.asarray(network.capacity[links])
    price = PRICE * user.total_travel_time / float(room.sum())

    def objective(added, x):
        return game.total_travel_time(added, x) + price * jnp.sum(added)

    problem = ix.DesignProblem(game, objective, ix.Box(jnp.zeros(count), room))
    found = ix.design(problem, jnp.zeros(count), throw=False)
    capacity = np.array(network.capacity)
    capacity[links] += np.asarray(found.theta)
    wider = ix.traffic.assign(dataclasses.replace(network, capacity=capacity), demand, gap=GAP)
    cost = price * float(jnp.sum(found.theta)) / user.total_travel_time
    yield known | answer("capacities", found, wider, user, clock) | {"cost": cost}


def answer(what, found, judged, user, clock):
    return {
        "design": what,
        "total_travel_time": judged.total_travel_time / user.total_travel_time,
        "relative_gap": judged.relative_gap,
        "ending": ix.ENDINGS[found.ending],
        "stationary": bool(found.result == ix.RESULTS.successful),
        "seconds": time.perf_counter() - clock,
    }


if __name__ == "__main__":
    main()
