"""The bridge's protocol without I/O: records, ledger, election, sessions, reviews."""
