from . import bank as bank
from ._charging import ev_charging as ev_charging
from ._duopoly import regulated_duopoly as regulated_duopoly
from ._emission_tax import emission_tax as emission_tax
from ._instance import Instance as Instance
from ._network_tolls import network_tolls as network_tolls
from ._planted import planted_choice as planted_choice
from ._random_mpec import random_mpec as random_mpec
from ._ready import READY as READY, Ready as Ready
from ._regions import Regions as Regions, two_regions as two_regions
from ._several import (
    chicken as chicken,
    coordination as coordination,
    three_routes as three_routes,
)
from ._tolls import second_best_tolls as second_best_tolls
