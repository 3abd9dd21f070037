from ._logit import logit_equilibrium as logit_equilibrium, LogitEquilibrium as LogitEquilibrium
from ._network import Demand as Demand, Network as Network
from ._paths import k_shortest_paths as k_shortest_paths, PathSet as PathSet
from ._routing import RoutingGame as RoutingGame
from ._sioux_falls import sioux_falls as sioux_falls, TOLLED_LINKS as TOLLED_LINKS
from ._system_optimum import system_optimum as system_optimum, SystemOptimum as SystemOptimum
