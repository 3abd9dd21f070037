from ._instance import Instance as Instance
from ._tolls import second_best_tolls as second_best_tolls
