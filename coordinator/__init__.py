"""The coordinator: finds work, builds transactions, relays ceremonies and broadcasts. Trusted with nothing but liveness."""
