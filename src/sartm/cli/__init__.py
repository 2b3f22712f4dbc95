"""The `sartm` command."""
