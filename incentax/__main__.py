"""`python -m incentax`."""

from .cli import entry

entry()
