"""A validator's pod: one operator's process with its identity, shares, own nodes and own rules."""
