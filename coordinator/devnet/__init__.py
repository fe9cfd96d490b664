"""A whole bridge on one machine, for demonstrations, tests and development."""
