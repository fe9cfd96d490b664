"""Bitcoin primitives: scripts, trees, addresses, transactions, digests, PSBTs and fees; the only importer of embit."""
