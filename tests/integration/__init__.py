"""Real processes: bitcoind, store, devchain, pods, coordinator."""
