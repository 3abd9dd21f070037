from ._aggregative import AggregativeGame as AggregativeGame
from ._atomic import AtomicGame as AtomicGame
from ._base import (
    AbstractGame as AbstractGame,
    AggregativeForm as AggregativeForm,
    Game as Game,
    Lanes as Lanes,
    Rational as Rational,
    StrategySet as StrategySet,
)
from ._captured import hold_captured as hold_captured
from ._quantal_response import QuantalResponse as QuantalResponse
from ._scenarios import ScenarioGame as ScenarioGame, ThroughGame as ThroughGame
from ._tikhonov import Tikhonov as Tikhonov, vanishing_weights as vanishing_weights
