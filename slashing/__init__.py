"""Armings, evidence, verdicts and the emergency. Arrive with step 3, in the rhythm of `pegin`."""
