"""Peg-in: invoices, deposits, their transfer and credit, in the rhythm model, build, review, lifecycle."""
