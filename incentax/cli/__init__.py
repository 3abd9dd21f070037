"""The command line: list, run, reproduce, certify, diagnose.

Double precision and the cache of compiled programs are switched on: an application may do so, the
library itself never does.
"""

from ._main import entry as entry, main as main
