"""Benchmarks: what the speed promises cost on this machine, as ratios to one curve multiplication."""
