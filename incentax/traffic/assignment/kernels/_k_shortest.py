"""The k shortest loop-free paths of every pair, best first with the exact way to go as a bound."""

from typing import NamedTuple

import numpy as np

from ._shortest import jit


class Partials(NamedTuple):
    """Paths from an origin, as a tree: `key` orders them, `spent` is what it costs so far."""

    parent: np.ndarray
    node: np.ndarray
    link: np.ndarray
    depth: np.ndarray
    spent: np.ndarray
    key: np.ndarray


@jit
def to_go(graph, destination, cost, label, heap):
    """Least cost from every node to a destination; `heap`: two work arrays of length links + 1."""
    keys, nodes = heap
    far = np.int64(2**62)
    label[:] = far
    label[destination] = 0
    size = 1
    keys[0], nodes[0] = 0, destination
    while size > 0:
        key, node = keys[0], nodes[0]
        size -= 1
        _put(keys, nodes, size, 0, (keys[size], nodes[size]))
        if key > label[node] or (node < graph.first_through and node != destination):
            continue
        for at in range(graph.in_start[node], graph.in_start[node + 1]):
            link = graph.in_link[at]
            tail = graph.tail[link]
            found = key + cost[link]
            if found < label[tail]:
                label[tail] = found
                at_ = size
                size += 1
                while at_ > 0 and keys[(at_ - 1) // 2] > found:
                    keys[at_], nodes[at_] = keys[(at_ - 1) // 2], nodes[(at_ - 1) // 2]
                    at_ = (at_ - 1) // 2
                keys[at_], nodes[at_] = found, tail


@jit
def _put(keys, nodes, size, at, what):
    key, node = what
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and keys[below + 1] < keys[below]:
            below += 1
        if keys[below] >= key:
            break
        keys[at], nodes[at] = keys[below], nodes[below]
        at = below
    keys[at], nodes[at] = key, node


@jit
def _before(tree, a, b):
    """Whether partial path `a` comes first: by cost, then nodes in order, then links."""
    if tree.key[a] != tree.key[b]:
        return tree.key[a] < tree.key[b]
    x, y = a, b
    while tree.depth[x] > tree.depth[y]:
        x = tree.parent[x]
    while tree.depth[y] > tree.depth[x]:
        y = tree.parent[y]
    nodes, links = 0, 0
    while x != y:
        if tree.node[x] != tree.node[y]:
            nodes = -1 if tree.node[x] < tree.node[y] else 1
        if tree.link[x] != tree.link[y]:
            links = -1 if tree.link[x] < tree.link[y] else 1
        x, y = tree.parent[x], tree.parent[y]
    if nodes == 0:
        nodes = tree.depth[a] - tree.depth[b]
    return nodes < 0 or (nodes == 0 and links < 0)


@jit
def _push(tree, heap, size, item):
    at = size
    while at > 0 and _before(tree, item, heap[(at - 1) // 2]):
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = item


@jit
def _pop(tree, heap, size):
    """The first of `size` partial paths; the heap has one less."""
    first, item, at = heap[0], heap[size - 1], 0
    size -= 1
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and _before(tree, heap[below + 1], heap[below]):
            below += 1
        if not _before(tree, heap[below], item):
            break
        heap[at] = heap[below]
        at = below
    heap[at] = item
    return first


@jit
def _longer(values):
    return np.concatenate((values, np.empty_like(values)))


@jit
def _grown(tree, heap):
    longer = Partials(
        _longer(tree.parent),
        _longer(tree.node),
        _longer(tree.link),
        _longer(tree.depth),
        _longer(tree.spent),
        _longer(tree.key),
    )
    return longer, _longer(heap)


@jit
def _visited(tree, item, node):
    while item >= 0:
        if tree.node[item] == node:
            return True
        item = tree.parent[item]
    return False


@jit
def k_shortest(graph, cost, pairs, k, most):
    """Links of all paths, lengths, and paths a pair; `pairs` with one destination after another.

    `cost`: whole numbers, so that sums in any order tie. Ends with -1 paths at a pair that needs
    more than `most` partial paths.
    """
    n, count = graph.out_start.size - 1, pairs.shape[0]
    label, last, far = np.empty(n, np.int64), -1, np.int64(2**62)
    work = np.empty(cost.size + 1, np.int64), np.empty(cost.size + 1, np.int64)
    room = 1024
    whole = np.empty((6, room), np.int64)
    tree = Partials(whole[0], whole[1], whole[2], whole[3], whole[4], whole[5])
    heap = np.empty(room, np.int64)
    links, lengths = np.empty(16 * k * count, np.int32), np.empty(k * count, np.int32)
    sizes, used, paths = np.zeros(count, np.int64), 0, 0
    for pair in range(count):
        origin, destination = pairs[pair]
        if destination != last:
            to_go(graph, destination, cost, label, work)
            last = destination
        if label[origin] == far or origin == destination:
            continue
        tree.parent[0], tree.node[0], tree.link[0], tree.depth[0] = -1, origin, -1, 0
        tree.spent[0], tree.key[0], heap[0] = 0, label[origin], 0
        made, size = 1, 1
        while size > 0 and sizes[pair] < k:
            item = _pop(tree, heap, size)
            size -= 1
            node = tree.node[item]
            if node == destination:
                length = tree.depth[item]
                while used + length > links.size:
                    links = np.concatenate((links, np.empty_like(links)))
                for at in range(length):
                    links[used + length - 1 - at] = tree.link[item]
                    item = tree.parent[item]
                used += length
                lengths[paths] = length
                paths += 1
                sizes[pair] += 1
                continue
            if node != origin and node < graph.first_through:
                continue
            for at in range(graph.out_start[node], graph.out_start[node + 1]):
                link = graph.out_link[at]
                head = graph.head[link]
                if label[head] == far or _visited(tree, item, head):
                    continue
                if made == most:
                    sizes[pair] = -1
                    return links[:used], lengths[:paths], sizes
                if made == tree.node.size:
                    tree, heap = _grown(tree, heap)
                tree.parent[made], tree.node[made], tree.link[made] = item, head, link
                tree.depth[made] = tree.depth[item] + 1
                tree.spent[made] = tree.spent[item] + cost[link]
                tree.key[made] = tree.spent[made] + label[head]
                _push(tree, heap, size, made)
                made += 1
                size += 1
    return links[:used], lengths[:paths], sizes
