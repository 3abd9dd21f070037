from ._bushes import (
    add_up as add_up,
    begin as begin,
    Bushes as Bushes,
    Costs as Costs,
    least_cost as least_cost,
    sweep as sweep,
    Traffic as Traffic,
    Trips as Trips,
    update_costs as update_costs,
)
from ._enumerate import cheap_paths as cheap_paths
from ._k_shortest import k_shortest as k_shortest
from ._shortest import Graph as Graph, graph_of as graph_of
