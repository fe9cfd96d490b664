"""Turns the wire contract into code, and checks that what is committed is what it gives."""
