from ._city import generate_city as generate_city
from ._devices import (
    even_pairs as even_pairs,
    EvenPairs as EvenPairs,
    share_pairs as share_pairs,
)
from ._logit import logit_equilibrium as logit_equilibrium, LogitEquilibrium as LogitEquilibrium
from ._markovian import MarkovianGame as MarkovianGame
from ._network import Demand as Demand, Network as Network
from ._paths import k_shortest_paths as k_shortest_paths, PathSet as PathSet
from ._routing import RoutingGame as RoutingGame
from ._sioux_falls import sioux_falls as sioux_falls, TOLLED_LINKS as TOLLED_LINKS
from ._system_optimum import system_optimum as system_optimum, SystemOptimum as SystemOptimum
from ._tollable import cordon as cordon, most_congested as most_congested
from .assignment import (
    assign as assign,
    Assignment as Assignment,
    cheap_paths as cheap_paths,
    generate_paths as generate_paths,
    grow_paths as grow_paths,
    join_paths as join_paths,
    memory_of_assignment as memory_of_assignment,
)
from .readers import (
    from_networkx as from_networkx,
    read_gmns as read_gmns,
    read_tntp as read_tntp,
    to_networkx as to_networkx,
)
