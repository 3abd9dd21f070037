"""A process that solves one problem by one method."""

import sys

from ._one import main

main(sys.argv[1:])
