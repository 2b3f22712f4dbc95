"""`python -m sartm`."""

from sartm.cli import run

run()
