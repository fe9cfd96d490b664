"""Stories about single modules."""
