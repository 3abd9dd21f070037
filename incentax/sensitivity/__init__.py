from ._implicit import Implicit as Implicit, Memory as Memory, Pullback as Pullback
