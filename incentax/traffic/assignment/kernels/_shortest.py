"""Shortest paths from one origin, compiled by numba.

Shifts between paths depend on one another link by link, which neither JAX nor the graph routines of
scipy can do; shortest paths stand beside them, so that labels that are nearly right are improved
in place and not computed anew.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from ..._network import Network


def jit(function: Any) -> Any:
    """Compiled at its first call, and kept on disk for later processes."""
    return numba.njit(cache=True, error_model="numpy")(function)


class Graph(NamedTuple):
    """Links by their ends, and the links that leave or enter each node."""

    tail: np.ndarray
    head: np.ndarray
    out_start: np.ndarray
    out_link: np.ndarray
    in_start: np.ndarray
    in_link: np.ndarray
    first_through: int


def graph_of(network: Network) -> Graph:
    """The links of a network by their ends."""
    nodes = np.arange(network.number_of_nodes + 1)
    tail, head = network.tail.astype(np.int64), network.head.astype(np.int64)
    leaving, entering = np.argsort(tail, kind="stable"), np.argsort(head, kind="stable")
    return Graph(
        tail=tail,
        head=head,
        out_start=np.searchsorted(tail[leaving], nodes),
        out_link=leaving,
        in_start=np.searchsorted(head[entering], nodes),
        in_link=entering,
        first_through=network.first_through_node,
    )


class Heap(NamedTuple):
    """Nodes by their keys, four below each; `place`: of a node, -1 not yet in it, -2 done."""

    key: np.ndarray
    node: np.ndarray
    place: np.ndarray


@jit
def shortest(graph, origin, cost, label, before):
    """Least costs from an origin by Dijkstra's method, and the link by which each is reached."""
    n = label.size
    label[:] = np.inf
    before[:] = -1
    heap = Heap(np.empty(n), np.empty(n, np.int64), np.full(n, -1, np.int64))
    size = 1
    label[origin], heap.key[0], heap.node[0], heap.place[origin] = 0.0, 0.0, origin, 0
    while size > 0:
        node = heap.node[0]
        heap.place[node] = -2
        size -= 1
        if size > 0:
            _sink(heap, size, heap.key[size], heap.node[size])
        if node < graph.first_through and node != origin:
            continue
        for at in range(graph.out_start[node], graph.out_start[node + 1]):
            link = graph.out_link[at]
            head = graph.head[link]
            found = label[node] + cost[link]
            if found < label[head]:
                label[head], before[head] = found, link
                if heap.place[head] == -1:
                    heap.place[head] = size
                    size += 1
                _rise(heap, found, head)


@jit
def _rise(heap, key, node):
    at = heap.place[node]
    while at > 0:
        above = (at - 1) // 4
        if heap.key[above] <= key:
            break
        heap.key[at], heap.node[at] = heap.key[above], heap.node[above]
        heap.place[heap.node[at]] = at
        at = above
    heap.key[at], heap.node[at], heap.place[node] = key, node, at


@jit
def _sink(heap, size, key, node):
    at = 0
    while True:
        least, least_key = -1, key
        first = 4 * at + 1
        for below in range(first, min(first + 4, size)):
            if heap.key[below] < least_key:
                least, least_key = below, heap.key[below]
        if least < 0:
            break
        heap.key[at], heap.node[at] = heap.key[least], heap.node[least]
        heap.place[heap.node[at]] = at
        at = least
    heap.key[at], heap.node[at], heap.place[node] = key, node, at


@jit
def improve(graph, origin, cost, label, work):
    """Labels that are costs of some path, made least ones: nodes whose label falls are looked at
    again. `work`: a queue of nodes, and whether each waits in it."""
    queue, waiting = work
    n, first, count = label.size, 0, 0
    for node in range(n):
        waiting[node] = False
    for node in range(n):
        if label[node] == np.inf or (node < graph.first_through and node != origin):
            continue
        for at in range(graph.out_start[node], graph.out_start[node + 1]):
            link = graph.out_link[at]
            if label[node] + cost[link] < label[graph.head[link]]:
                queue[count], waiting[node] = node, True
                count += 1
                break
    while count > 0:
        node = queue[first]
        first, count = (first + 1) % n, count - 1
        waiting[node] = False
        if node < graph.first_through and node != origin:
            continue
        for at in range(graph.out_start[node], graph.out_start[node + 1]):
            link = graph.out_link[at]
            head = graph.head[link]
            found = label[node] + cost[link]
            if found < label[head]:
                label[head] = found
                if not waiting[head]:
                    waiting[head] = True
                    queue[(first + count) % n] = head
                    count += 1
