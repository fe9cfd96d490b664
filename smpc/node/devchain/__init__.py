"""The embedded consensus layer: a real small chain with one proposer, served over gRPC (`peg-devchain`)."""
