"""Seeded simulations."""
