"""The second demonstration: a Validator group turns malicious, and its BTC leaves it."""
