"""The Node Interface: adapters that turn Bitcoin and the consensus layer into questions, events and broadcasts."""
