"""The Sioux Falls network.

Figures of L. J. LeBlanc, E. K. Morlok and W. P. Pierskalla, "An efficient approach to solving the
road network equilibrium traffic assignment problem", Transportation Research 9 (1975) 309-318.
"""

import numpy as np

from ._network import Demand, Network

# Every road carries one link each way: (node, node, capacity, free-flow time in 0.01 h).
_ROADS = (
    (1, 2, 25900.20064, 6.0), (1, 3, 23403.47319, 4.0), (2, 6, 4958.180928, 5.0),
    (3, 4, 17110.52372, 4.0), (3, 12, 23403.47319, 4.0), (4, 5, 17782.7941, 2.0),
    (4, 11, 4908.82673, 6.0), (5, 6, 4947.995469, 4.0), (5, 9, 10000.0, 5.0),
    (6, 8, 4898.587646, 2.0), (7, 8, 7841.81131, 3.0), (7, 18, 23403.47319, 2.0),
    (8, 9, 5050.193156, 10.0), (8, 16, 5045.822583, 5.0), (9, 10, 13915.78842, 3.0),
    (10, 11, 10000.0, 5.0), (10, 15, 13512.00155, 6.0), (10, 16, 4854.917717, 4.0),
    (10, 17, 4993.510694, 8.0), (11, 12, 4908.82673, 6.0), (11, 14, 4876.508287, 4.0),
    (12, 13, 25900.20064, 3.0), (13, 24, 5091.256152, 4.0), (14, 15, 5127.526119, 5.0),
    (14, 23, 4924.790605, 4.0), (15, 19, 14564.75315, 3.0), (15, 22, 9599.180565, 3.0),
    (16, 17, 5229.910063, 2.0), (16, 18, 19679.89671, 3.0), (17, 19, 4823.950831, 2.0),
    (18, 20, 23403.47319, 4.0), (19, 20, 5002.607563, 4.0), (20, 21, 5059.91234, 6.0),
    (20, 22, 5075.697193, 5.0), (21, 22, 5229.910063, 2.0), (21, 24, 4885.357564, 3.0),
    (22, 23, 5000.0, 4.0), (23, 24, 5078.508436, 2.0),
)  # fmt: skip

# Hundreds of trips a day, one row an origin, one column a destination.
_TRIPS = """
0  1  1  5  2  3  5  8  5 13  5  2  5  3  5  5  4  1  3  3  1  4  3  1
1  0  1  2  1  4  2  4  2  6  2  1  3  1  1  4  2  0  1  1  0  1  0  0
1  1  0  2  1  3  1  2  1  3  3  2  1  1  1  2  1  0  0  0  0  1  1  0
5  2  2  0  5  4  4  7  7 12 14  6  6  5  5  8  5  1  2  3  2  4  5  2
2  1  1  5  0  2  2  5  8 10  5  2  2  1  2  5  2  0  1  1  1  2  1  0
3  4  3  4  2  0  4  8  4  8  4  2  2  1  2  9  5  1  2  3  1  2  1  1
5  2  1  4  2  4  0 10  6 19  5  7  4  2  5 14 10  2  4  5  2  5  2  1
8  4  2  7  5  8 10  0  8 16  8  6  6  4  6 22 14  3  7  9  4  5  3  2
5  2  1  7  8  4  6  8  0 28 14  6  6  6  9 14  9  2  4  6  3  7  5  2
13  6  3 12 10  8 19 16 28  0 40 20 19 21 40 44 39  7 18 25 12 26 18  8
5  2  3 15  5  4  5  8 14 39  0 14 10 16 14 14 10  1  4  6  4 11 13  6
2  1  2  6  2  2  7  6  6 20 14  0 13  7  7  7  6  2  3  4  3  7  7  5
5  3  1  6  2  2  4  6  6 19 10 13  0  6  7  6  5  1  3  6  6 13  8  8
3  1  1  5  1  1  2  4  6 21 16  7  6  0 13  7  7  1  3  5  4 12 11  4
5  1  1  5  2  2  5  6 10 40 14  7  7 13  0 12 15  2  8 11  8 26 10  4
5  4  2  8  5  9 14 22 14 44 14  7  6  7 12  0 28  5 13 16  6 12  5  3
4  2  1  5  2  5 10 14  9 39 10  6  5  7 15 28  0  6 17 17  6 17  6  3
1  0  0  1  0  1  2  3  2  7  2  2  1  1  2  5  6  0  3  4  1  3  1  0
3  1  0  2  1  2  4  7  4 18  4  3  3  3  8 13 17  3  0 12  4 12  3  1
3  1  0  3  1  3  5  9  6 25  6  5  6  5 11 16 17  4 12  0 12 24  7  4
1  0  0  2  1  1  2  4  3 12  4  3  6  4  8  6  6  1  4 12  0 18  7  5
4  1  1  4  2  2  5  5  7 26 11  7 13 12 26 12 17  3 12 24 18  0 21 11
3  0  1  5  1  1  2  3  5 18 13  7  8 11 10  5  6  1  3  7  7 21  0  7
1  0  0  2  0  1  1  2  2  8  6  5  7  4  4  3  3  0  1  4  5 11  7  0
"""

# A drawing of the streets, not a survey: column and row of each node.
_POSITION = (
    (0, 8), (3, 8), (0, 7), (1, 7), (2, 7), (3, 7), (4, 6), (3, 6), (2, 6), (2, 5), (1, 5), (0, 5),
    (0, 1), (1, 3), (2, 3), (3, 5), (3, 4), (4, 5), (3, 3), (3, 1), (2, 1), (2, 2), (1, 2), (1, 1),
)  # fmt: skip

# The tollable links of Liu et al. (2022), section 7, as they list them.
TOLLED_LINKS = (11, 35, 32, 68, 46, 21, 65, 52, 71, 74, 33, 64, 69, 14, 18, 39, 57, 48, 15, 51)


def sioux_falls() -> tuple[Network, Demand]:
    """Sioux Falls: 24 zones, 76 links, 528 pairs, 360,600 trips.

    Times are in 0.01 h and `t = t0 (1 + 0.15 (flow / capacity)^4)`. Links are ordered by tail,
    then head, as everywhere in the literature, so link numbers of papers (from 0) can be used.

    **Reference:** LeBlanc, Morlok, Pierskalla, *Transportation Research* 9 (1975) 309-318.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> network.number_of_links, demand.trips.sum().item()
        (76, 360600.0)
    """
    both_ways = [(a, b, c, t) for a, b, c, t in _ROADS] + [(b, a, c, t) for a, b, c, t in _ROADS]
    tail, head, capacity, time = (np.asarray(column) for column in zip(*sorted(both_ways)))
    links = tail.size
    network = Network(
        tail=tail - 1,
        head=head - 1,
        capacity=capacity,
        free_flow_time=time,
        b=np.full(links, 0.15),
        power=np.full(links, 4.0),
        number_of_nodes=24,
        position=np.asarray(_POSITION, float),
    )
    trips = 100.0 * np.asarray([row.split() for row in _TRIPS.split("\n") if row], float)
    pairs = np.argwhere(trips > 0)
    return network, Demand(pairs, trips[tuple(pairs.T)])
