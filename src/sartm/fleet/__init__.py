"""Pairs by the million: manifests to label maps, by this process, shards of a batch system, Ray."""
