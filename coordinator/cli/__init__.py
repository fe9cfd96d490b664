"""The command line `peg`: for users, operators and the devnet. It trusts its own keys and consensus node only."""
