"""Paths that cost no more than the shortest one by so much, origin by origin."""

import numpy as np

from ._shortest import jit, shortest


@jit
def cheap_paths(graph, origin, cost, trips, limits):
    """Loop-free paths of every pair within `(1 + tolerance)` of the least cost.

    `limits`: the tolerance, and how many a pair at most. Links of all paths, number of links of
    each, number of paths of each pair (-1: no path at all), and whether some pair has more.
    """
    n, pairs = graph.out_start.size - 1, trips.node.size
    tolerance, most = limits
    label, before = np.empty(n), np.empty(n, np.int64)
    links, lengths = np.empty(16 * pairs, np.int32), np.empty(2 * pairs, np.int32)
    sizes, used, paths, cut = np.zeros(pairs, np.int64), 0, 0, False
    # The way back from the destination: its links, where each node looks next, what is left.
    way, next_, room = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    on_way = np.zeros(n, np.bool_)
    for row in range(origin.size):
        shortest(graph, origin[row], cost, label, before)
        for pair in range(trips.start[row], trips.start[row + 1]):
            node = trips.node[pair]
            if label[node] == np.inf:
                sizes[pair] = -1
                continue
            depth, room[0] = 0, tolerance * label[node] + 1e-14 * label[node]
            next_[0], on_way[node], full = graph.in_start[node], True, False
            while depth >= 0:
                if next_[depth] == graph.in_start[node + 1] or full:
                    on_way[node] = False
                    depth -= 1
                    if depth >= 0:
                        node = graph.head[way[depth]]
                    continue
                link = graph.in_link[next_[depth]]
                next_[depth] += 1
                tail = graph.tail[link]
                left = room[depth] - (label[tail] + cost[link] - label[node])
                if not left >= 0 or on_way[tail]:
                    continue
                if tail < graph.first_through and tail != origin[row]:
                    continue
                way[depth] = link
                if tail != origin[row]:
                    depth += 1
                    node, room[depth], next_[depth] = tail, left, graph.in_start[tail]
                    on_way[tail] = True
                    continue
                if sizes[pair] == most:
                    full = cut = True
                    continue
                while used + depth + 1 > links.size:
                    links = np.concatenate((links, np.empty_like(links)))
                if paths == lengths.size:
                    lengths = np.concatenate((lengths, np.empty_like(lengths)))
                for at in range(depth + 1):
                    links[used + at] = way[depth - at]
                used += depth + 1
                lengths[paths] = depth + 1
                paths += 1
                sizes[pair] += 1
    return links[:used], lengths[:paths], sizes, cut
