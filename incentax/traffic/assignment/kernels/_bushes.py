"""Algorithm B: user equilibrium by shifts between the longest and the shortest way of a bush.

A bush is what one origin uses: links without a cycle. R. B. Dial, "A path-based user-equilibrium
traffic assignment algorithm that obviates path storage and enumeration", *Transportation Research
B* 40 (2006) 917-936; Y. Nie, "A class of bush-based algorithms for the traffic assignment
problem", *Transportation Research B* 44 (2010) 73-89.

Compiled by numba: every step depends on the one before, on single links, which neither JAX nor
the graph routines of scipy can do.
"""

from typing import NamedTuple

import numpy as np

from ._shortest import Graph, improve, jit, shortest

# Relative: excess of the longest over the shortest way, and flow of an origin, that are none.
_EQUAL, _ROUNDING = 1e-15, 1e-13


class Costs(NamedTuple):
    """Link costs `time (1 + b (flow / capacity)^power) + fixed`."""

    time: np.ndarray
    b: np.ndarray
    capacity: np.ndarray
    power: np.ndarray
    fixed: np.ndarray


class Traffic(NamedTuple):
    """Flows on all links, what they cost there, and how fast costs rise."""

    graph: Graph
    costs: Costs
    flow: np.ndarray
    cost: np.ndarray
    slope: np.ndarray


class Trips(NamedTuple):
    """Of every origin where its pairs begin; of every pair its destination and its trips."""

    start: np.ndarray
    node: np.ndarray
    number: np.ndarray


class Bushes(NamedTuple):
    """Of every origin, a row: its links, their flows, and its nodes in topological order."""

    origin: np.ndarray
    links: np.ndarray
    flow: np.ndarray
    order: np.ndarray
    reached: np.ndarray


class Bush(NamedTuple):
    """A row of these."""

    origin: int
    links: np.ndarray
    flow: np.ndarray
    nodes: np.ndarray


class Ways(NamedTuple):
    """Costs of the shortest and the longest way to each node of a bush, and their last links."""

    least: np.ndarray
    most: np.ndarray
    by_least: np.ndarray
    by_most: np.ndarray


@jit
def link_cost(costs, link, flow):
    """Cost of a link, and its derivative by the flow (at rest of a small flow, where infinite)."""
    time, power = costs.time[link] * costs.b[link], costs.power[link]
    load = flow / costs.capacity[link]
    if time == 0.0 or power == 0.0:
        return costs.time[link] + time + costs.fixed[link], 0.0
    if load <= 0.0 and power >= 1.0:
        slope = time / costs.capacity[link] if power == 1.0 else 0.0
        return costs.time[link] + costs.fixed[link], slope
    if power == 4.0:
        below = load * load * load
    else:
        below = max(load, 1e-9) ** (power - 1.0)
    slope = time * power * below / costs.capacity[link]
    congestion = below * load if load >= 1e-9 else load**power
    return costs.time[link] + time * congestion + costs.fixed[link], slope


@jit
def update_costs(traffic):
    """Costs and slopes of all links at their flows."""
    for link in range(traffic.flow.size):
        _update_cost(traffic, link)


@jit
def _update_cost(traffic, link):
    found = link_cost(traffic.costs, link, traffic.flow[link])
    traffic.cost[link], traffic.slope[link] = found


@jit
def _new_ways(n):
    return Ways(np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64))


@jit
def _bush(bushes, row):
    nodes = bushes.order[row][: bushes.reached[row]]
    return Bush(bushes.origin[row], bushes.links[row], bushes.flow[row], nodes)


@jit
def sort_bush(graph, origin, links, order, into):
    """Nodes of a bush in topological order; how many it reaches."""
    into[:] = 0
    for link in range(links.size):
        if links[link]:
            into[graph.head[link]] += 1
    order[0] = origin
    count, at = 1, 0
    while at < count:
        node = order[at]
        at += 1
        for place in range(graph.out_start[node], graph.out_start[node + 1]):
            link = graph.out_link[place]
            if links[link]:
                head = graph.head[link]
                into[head] -= 1
                if into[head] == 0:
                    order[count] = head
                    count += 1
    return count


@jit
def label_bush(graph, cost, bush, ways, used):
    """Shortest and longest ways of a bush; the longest over links with flow only where `used`."""
    ways.least[bush.origin], ways.most[bush.origin] = 0.0, 0.0
    ways.by_least[bush.origin], ways.by_most[bush.origin] = -1, -1
    for place in range(1, bush.nodes.size):
        node = bush.nodes[place]
        low, high, by_low, by_high = np.inf, -np.inf, -1, -1
        for at in range(graph.in_start[node], graph.in_start[node + 1]):
            link = graph.in_link[at]
            if not bush.links[link]:
                continue
            tail = graph.tail[link]
            if ways.least[tail] + cost[link] < low:
                low, by_low = ways.least[tail] + cost[link], link
            if (bush.flow[link] > 0.0 or not used) and ways.most[tail] + cost[link] > high:
                high, by_high = ways.most[tail] + cost[link], link
        ways.least[node], ways.most[node] = low, high
        ways.by_least[node], ways.by_most[node] = by_low, by_high


@jit
def _excess(traffic, bush, ways, node, stop):
    """Of the longest segment over the shortest one: cost, slope, and the flow that can move."""
    excess, bend, room = 0.0, 0.0, np.inf
    tail = traffic.graph.tail
    at = node
    while at != stop:
        link = ways.by_least[at]
        excess -= traffic.cost[link]
        bend += traffic.slope[link]
        at = tail[link]
    at = node
    while at != stop:
        link = ways.by_most[at]
        excess += traffic.cost[link]
        bend += traffic.slope[link]
        room = min(room, bush.flow[link])
        at = tail[link]
    return excess, bend, room


@jit
def _move(traffic, bush, ways, ends, amount):
    """Moves flow from the longest segment to the shortest one (back, where negative).

    `ends`: of both segments; `amount`: what moves, and what could.
    """
    (node, stop), (shift, room), tail = ends, amount, traffic.graph.tail
    at = node
    while at != stop:
        link = ways.by_least[at]
        bush.flow[link] = max(bush.flow[link] + shift, 0.0)
        traffic.flow[link] = max(traffic.flow[link] + shift, 0.0)
        _update_cost(traffic, link)
        at = tail[link]
    at = node
    while at != stop:
        link = ways.by_most[at]
        # What is emptied is emptied, and no rounding left of it.
        left = bush.flow[link] - shift
        bush.flow[link] = 0.0 if left <= 1e-14 * room or left < 0.0 else left
        traffic.flow[link] = max(traffic.flow[link] - shift, 0.0)
        _update_cost(traffic, link)
        at = tail[link]


@jit
def shift_flows(traffic, bush, ways, rank):
    """Newton shifts at every node of a bush, from its ends on; the excess cost that was found."""
    tail, found = traffic.graph.tail, 0.0
    by_least, by_most = ways.by_least, ways.by_most
    for place in range(bush.nodes.size):
        rank[bush.nodes[place]] = place
    for place in range(bush.nodes.size - 1, 0, -1):
        node = bush.nodes[place]
        if by_most[node] < 0 or by_most[node] == by_least[node]:
            continue
        if ways.most[node] - ways.least[node] <= _EQUAL * ways.most[node]:
            continue
        a, b = tail[by_least[node]], tail[by_most[node]]
        while a != b:
            if rank[a] > rank[b]:
                a = tail[by_least[a]]
            else:
                b = tail[by_most[b]]
        excess, bend, room = _excess(traffic, bush, ways, node, a)
        if excess <= 0.0 or room <= 0.0:
            continue
        found += excess * room
        shift = room if bend * room <= excess else excess / bend
        _move(traffic, bush, ways, (node, a), (shift, room))
        for _ in range(6):  # steep costs: not far beyond the balance
            after, _, _ = _excess(traffic, bush, ways, node, a)
            if after >= -0.5 * excess:
                break
            shift /= 2
            _move(traffic, bush, ways, (node, a), (-shift, room))
    return found


@jit
def update_bush(graph, cost, bush, ways, longest):
    """Drops links without flow that are no shortest way, and adds those that shorten the longest.

    `longest` is a work array. Whether anything was added or dropped.
    """
    links, flow, changed = bush.links, bush.flow, False
    label_bush(graph, cost, bush, ways, False)
    rounding = _ROUNDING * np.max(flow)
    for link in range(links.size):
        if not links[link] or flow[link] > rounding:
            continue
        # What rounding has left has no way from the origin any more, and would hold the bush up.
        flow[link] = 0.0
        if ways.by_least[graph.head[link]] != link:
            links[link] = False
            changed = True
    label_bush(graph, cost, bush, ways, False)
    longest[:] = -1.0
    for place in range(bush.nodes.size):
        longest[bush.nodes[place]] = ways.most[bush.nodes[place]]
    for link in range(links.size):
        tail, head = graph.tail[link], graph.head[link]
        if links[link] or longest[tail] < 0.0 or longest[head] < 0.0 or head == bush.origin:
            continue
        if tail < graph.first_through and tail != bush.origin:
            continue
        if longest[tail] + cost[link] < longest[head]:
            links[link] = True
            changed = True
    return changed


@jit
def begin(traffic, bushes, trips):
    """Every origin's demand on its shortest paths, one origin after another at ever new costs.

    The number of a pair without a path, or -1.
    """
    graph = traffic.graph
    n = graph.out_start.size - 1
    label, before, into = np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64)
    update_costs(traffic)
    for row in range(bushes.origin.size):
        origin, links, flow = bushes.origin[row], bushes.links[row], bushes.flow[row]
        shortest(graph, origin, traffic.cost, label, before)
        for node in range(n):
            if before[node] >= 0:
                links[before[node]] = True
        for pair in range(trips.start[row], trips.start[row + 1]):
            node = trips.node[pair]
            if label[node] == np.inf:
                return pair
            while node != origin:
                flow[before[node]] += trips.number[pair]
                node = graph.tail[before[node]]
        for link in range(links.size):
            if flow[link] > 0.0:
                traffic.flow[link] += flow[link]
                _update_cost(traffic, link)
        bushes.reached[row] = sort_bush(graph, origin, links, bushes.order[row], into)
    return -1


@jit
def add_up(traffic, bushes):
    """Flows on all links from those of the bushes, and their costs."""
    traffic.flow[:] = 0.0
    for row in range(bushes.origin.size):
        for link in range(traffic.flow.size):
            traffic.flow[link] += bushes.flow[row][link]
    update_costs(traffic)


@jit
def sweep(traffic, bushes, excess, renew, floor):
    """One round over all origins: bushes renewed where asked for, then shifts on each.

    Origins whose last `excess` is below `floor` wait. The excess cost that was found.
    """
    graph = traffic.graph
    n = graph.out_start.size - 1
    ways, rank, work = _new_ways(n), np.empty(n, np.int64), np.empty(n)
    for row in range(bushes.origin.size):
        if not renew and excess[row] <= floor:
            continue
        bush = _bush(bushes, row)
        if renew and update_bush(graph, traffic.cost, bush, ways, work):
            order = bushes.order[row]
            bushes.reached[row] = sort_bush(graph, bush.origin, bush.links, order, rank)
            bush = _bush(bushes, row)
        label_bush(graph, traffic.cost, bush, ways, True)
        excess[row] = shift_flows(traffic, bush, ways, rank)
    return np.sum(excess)


@jit
def least_cost(traffic, bushes, trips):
    """What all trips would cost on shortest paths."""
    graph, sum_ = traffic.graph, 0.0
    n = graph.out_start.size - 1
    ways, work = _new_ways(n), (np.empty(n, np.int64), np.empty(n, np.bool_))
    for row in range(bushes.origin.size):
        ways.least[:] = np.inf
        label_bush(graph, traffic.cost, _bush(bushes, row), ways, False)
        improve(graph, bushes.origin[row], traffic.cost, ways.least, work)
        for pair in range(trips.start[row], trips.start[row + 1]):
            sum_ += trips.number[pair] * ways.least[trips.node[pair]]
    return sum_
