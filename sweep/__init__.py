"""Sweep: moving the vault to the next epoch's groups. Arrives with epoch turns (step 2), in the rhythm of `pegin`."""
