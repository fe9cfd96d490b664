"""Addresses of one explicit network: destinations a payout may go to, and the address of a script."""

from __future__ import annotations

from typing import Final

from smpc.bitcoin.base58 import decode_base58check, encode_base58check
from smpc.bitcoin.bech32 import decode_segwit_address, encode_segwit_address
from smpc.bitcoin.network import NetworkConstants, get_constants
from smpc.bitcoin.script import OutputType, build_p2tr, find_output_type
from smpc.curve import is_valid_xonly
from smpc.errors import InvalidInput
from smpc.types import Network, Script, XOnlyKey

DESTINATION_TYPES: Final = frozenset(
    {OutputType.P2PKH, OutputType.P2SH, OutputType.P2WPKH, OutputType.P2WSH, OutputType.P2TR}
)
"""What a payout may pay."""


def parse_destination(text: str, network: Network) -> Script:
    """Return the script an address of `network` stands for: P2PKH, P2SH, P2WPKH, P2WSH or P2TR.

    InvalidInput for other networks, any mistyped character, future witness versions, and Taproot keys that are no
    point of the curve (coins sent there would be lost).
    """
    constants = get_constants(network)
    if _looks_like_segwit(text):
        return _parse_segwit(text, constants)
    return _parse_base58(text, constants)


def to_address(script: bytes, network: Network) -> str:
    """Return the address of a destination script on `network`; InvalidInput for a script that has none."""
    constants = get_constants(network)
    match find_output_type(script):
        case OutputType.P2PKH:
            return encode_base58check(bytes((constants.p2pkh_prefix,)) + script[3:23])
        case OutputType.P2SH:
            return encode_base58check(bytes((constants.p2sh_prefix,)) + script[2:22])
        case OutputType.P2WPKH | OutputType.P2WSH:
            return encode_segwit_address(constants.hrp, 0, script[2:])
        case OutputType.P2TR:
            return encode_segwit_address(constants.hrp, 1, script[2:])
        case _:
            raise InvalidInput(f"script {script[:40].hex()} has no address", remedy="show it as hex")


def is_standard_destination(script: bytes) -> bool:
    """Tell whether a payout may go to `script`: the five address types, a Taproot key on the curve (rule V42)."""
    kind = find_output_type(script)
    return kind in DESTINATION_TYPES and (kind is not OutputType.P2TR or is_valid_xonly(script[2:]))


def _looks_like_segwit(text: str) -> bool:
    """Tell whether a known prefix of any network opens the text, for a clearer refusal than "not Base58"."""
    return any(text.lower().startswith(get_constants(network).hrp + "1") for network in Network)


def _parse_segwit(text: str, constants: NetworkConstants) -> Script:
    version, program = decode_segwit_address(text, constants.hrp)
    if version == 0:
        return Script(bytes((0, len(program))) + program)
    if version != 1 or len(program) != 32:
        raise InvalidInput(
            f"address has witness version {version} with {len(program)} bytes, which no wallet can spend yet",
            remedy="use a P2PKH, P2SH, P2WPKH, P2WSH or P2TR address",
        )
    if not is_valid_xonly(program):
        raise InvalidInput("Taproot address has no valid key: coins sent there would be lost")
    return build_p2tr(XOnlyKey(program))


def _parse_base58(text: str, constants: NetworkConstants) -> Script:
    payload = decode_base58check(text)
    if len(payload) == 21 and payload[0] == constants.p2pkh_prefix:
        return Script(b"\x76\xa9\x14" + payload[1:] + b"\x88\xac")
    if len(payload) == 21 and payload[0] == constants.p2sh_prefix:
        return Script(b"\xa9\x14" + payload[1:] + b"\x87")
    raise InvalidInput(f"address is not a P2PKH or P2SH address of {constants.network}")
