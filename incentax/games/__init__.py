from ._aggregative import AggregativeGame as AggregativeGame
from ._atomic import AtomicGame as AtomicGame
from ._base import AbstractGame as AbstractGame, AggregativeForm as AggregativeForm, Game as Game
from ._quantal_response import QuantalResponse as QuantalResponse
