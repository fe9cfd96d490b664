"""What evidence can show, and which rule each offence broke."""

from __future__ import annotations

import enum
from typing import Final


class Offence(enum.StrEnum):
    """What a bundle shows: what one member did, and last what a group did as a whole."""

    INVALID_SHARE = "invalid_share"
    """A share that does not verify against what its author says that it signed."""
    INVALID_NONCE = "invalid_nonce"
    """A commitment that is no curve point, or has no nonce's length."""
    TWO_ANSWERS = "two_answers"
    """Two different answers with the same nonces."""
    CEREMONY_FAULT = "ceremony_fault"
    """A wrong message in a key ceremony."""
    UNAUTHORISED_SPEND = "unauthorised_spend"
    """A group's signature under a transaction that no record allows."""


RULES: Final = {
    Offence.INVALID_SHARE: "a share verifies against its author's nonces and public share (BIP 445 PartialSigVerify)",
    Offence.INVALID_NONCE: "a public nonce is two curve points (BIP 445 NonceGen)",
    Offence.TWO_ANSWERS: "a nonce is used once (V09)",
    Offence.CEREMONY_FAULT: "a ceremony message fits the session and its own commitments (ChillDKG; design section 4)",
    Offence.UNAUTHORISED_SPEND: "a group signs no transaction that no record allows (design section 3.8)",
}
"""What each offence broke."""
