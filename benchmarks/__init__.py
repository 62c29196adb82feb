"""Measurements: each prints JSON and compares with a peer in the same run."""
