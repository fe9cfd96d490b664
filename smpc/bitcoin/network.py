"""Constants of each Bitcoin network; always passed explicitly, never a global setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smpc.types import BlockHash, Network, block_hash_from_hex


@dataclass(frozen=True, slots=True)
class NetworkConstants:
    """What differs between Bitcoin networks: address prefixes, genesis block, BIP 44 coin type."""

    network: Network
    hrp: str
    """The human-readable part of segwit addresses (BIP 173)."""
    p2pkh_prefix: int
    """Base58 version byte of pay-to-pubkey-hash addresses."""
    p2sh_prefix: int
    """Base58 version byte of pay-to-script-hash addresses."""
    genesis_hash: BlockHash
    """Hash of block 0, internal byte order."""
    coin_type: int
    """The BIP 44 coin type: 0 on mainnet, 1 elsewhere."""
    chain_name: str
    """What the node's `getblockchaininfo` calls this chain."""


_CONSTANTS: Final = {
    Network.MAINNET: NetworkConstants(
        network=Network.MAINNET,
        hrp="bc",
        p2pkh_prefix=0x00,
        p2sh_prefix=0x05,
        genesis_hash=block_hash_from_hex("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
        coin_type=0,
        chain_name="main",
    ),
    Network.SIGNET: NetworkConstants(
        network=Network.SIGNET,
        hrp="tb",
        p2pkh_prefix=0x6F,
        p2sh_prefix=0xC4,
        genesis_hash=block_hash_from_hex("00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
        coin_type=1,
        chain_name="signet",
    ),
    Network.REGTEST: NetworkConstants(
        network=Network.REGTEST,
        hrp="bcrt",
        p2pkh_prefix=0x6F,
        p2sh_prefix=0xC4,
        genesis_hash=block_hash_from_hex("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"),
        coin_type=1,
        chain_name="regtest",
    ),
}


def get_constants(network: Network) -> NetworkConstants:
    """Return the constants of `network`."""
    return _CONSTANTS[network]
