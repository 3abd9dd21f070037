from ._assign import (
    assign as assign,
    Assignment as Assignment,
    memory_of_assignment as memory_of_assignment,
)
from ._generate_paths import (
    cheap_paths as cheap_paths,
    generate_paths as generate_paths,
    grow_paths as grow_paths,
    join_paths as join_paths,
    k_shortest_compiled as k_shortest_compiled,
)
