"""The `sartm data` commands: check, describe, convert and align data sets."""
