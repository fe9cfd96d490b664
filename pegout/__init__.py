"""Peg-out: burns paid in batches from the vault, in the rhythm model, build, review, lifecycle."""
