"""Threshold cryptography, pure: key ceremonies (`dkg`), signing (`frost`), its scheduling (`roast`), child keys.

Nothing here reads a clock, draws randomness or does I/O; letters and step names are those of the BIPs.
"""
