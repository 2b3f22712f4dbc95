"""`python -m sartm`."""

from sartm.cli.main import run

run()
