"""Makes a working tree out of a fresh clone, with the standard library alone."""
