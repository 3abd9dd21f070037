from ._assign import assign as assign, Assignment as Assignment
from ._generate_paths import (
    cheap_paths as cheap_paths,
    generate_paths as generate_paths,
    grow_paths as grow_paths,
    join_paths as join_paths,
)
