from ._gmns import read_gmns as read_gmns
from ._networkx import from_networkx as from_networkx, to_networkx as to_networkx
from ._tntp import read_tntp as read_tntp
