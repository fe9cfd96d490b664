"""Brings a Bitcoin node to a machine that has none."""
