"""One suite per port, run against the twin and the real thing."""
