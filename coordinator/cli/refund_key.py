"""Whose key can take a deposit back: typed in, one of the user's accounts, or fresh from his Bitcoin wallet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coordinator.cli.desk import Desk
from smpc.bitcoin.key_origin import KeyOrigin, parse_key_origin, parse_user_key
from smpc.curve import is_valid_xonly
from smpc.errors import CheckFailed, ConfigError, InvalidInput
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint
from smpc.node.bitcoind_json import Fields
from smpc.node.bitcoind_rpc import BitcoindRpc
from smpc.types import XOnlyKey

_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_WALLET_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REMEDY: Final = "give the 64 hex digits of an x-only key, as [fingerprint/path]key, or use --wallet NAME"


@dataclass(frozen=True, slots=True)
class RefundKey:
    """The key of the refund leaf; `origin` is None for a key that is no wallet's child: it is its own master."""

    key: XOnlyKey
    origin: KeyOrigin | None


@dataclass(frozen=True, slots=True)
class RefundChoice:
    """What the user said about his refund key; exactly one of key, account and wallet."""

    key: str = ""
    origin: str = ""
    account: str = ""
    wallet: str = ""
    rpc: str = ""
    cookie: Path | None = None


async def find_refund_key(desk: Desk, choice: RefundChoice) -> RefundKey:
    """Return the key chosen; InvalidInput when none or several are named, or one is no key."""
    if sum(map(bool, (choice.key, choice.account, choice.wallet))) != 1:
        raise InvalidInput("name exactly one of --refund-key, --refund-account and --wallet", remedy=_REMEDY)
    if choice.origin and not choice.key:
        raise InvalidInput("--refund-origin belongs to --refund-key", remedy=_REMEDY)
    if choice.account:
        return RefundKey(XOnlyKey(desk.accounts.get(choice.account).key), None)
    if choice.wallet:
        return await _fetch_from_wallet(desk, choice)
    return parse_refund_key(choice.key, choice.origin)


def parse_refund_key(text: str, origin: str = "") -> RefundKey:
    """Read `key` with an origin beside it, `[fingerprint/path]key`, or `tr(...)#checksum`; InvalidInput otherwise."""
    if not _KEY.fullmatch(text):
        if origin:
            raise InvalidInput("the refund key has its origin inside already, or is no key", remedy=_REMEDY)
        user = parse_user_key(text)
        return RefundKey(user.key, user.origin)
    key = bytes.fromhex(text)
    if not is_valid_xonly(key):
        raise InvalidInput("the refund key is not a point of secp256k1: nobody could ever sign with it", remedy=_REMEDY)
    return RefundKey(XOnlyKey(key), parse_key_origin(origin.strip("[]")) if origin else None)


async def _fetch_from_wallet(desk: Desk, choice: RefundChoice) -> RefundKey:
    """Draw a fresh address of the wallet's tr() account: its descriptor names the key and where it lives."""
    async with BitcoindRpc(build_wallet_endpoint(desk, choice)) as wallet:
        address = await wallet.call("getnewaddress", "peg-in refund", "bech32m")
        info = Fields.from_reply("getaddressinfo", await wallet.call("getaddressinfo", str(address)))
    try:
        user = parse_user_key(info.read_text("desc"))
    except InvalidInput as error:
        raise CheckFailed(f"the wallet's address is no plain tr() key: {error.message}", remedy=_REMEDY) from error
    return RefundKey(user.key, user.origin)


def build_wallet_endpoint(desk: Desk, choice: RefundChoice) -> RpcEndpoint:
    """Return the RPC endpoint of a wallet: on the profile's node, or on the one named."""
    if not _WALLET_NAME.fullmatch(choice.wallet):
        raise InvalidInput(f"{choice.wallet[:40]!r} is no wallet name", remedy="use letters, digits, dot, - and _")
    if choice.rpc and choice.cookie:
        return RpcEndpoint(f"{choice.rpc.rstrip('/')}/wallet/{choice.wallet}", CookieFile(choice.cookie))
    settings = desk.profile.bitcoind
    if settings is None or (choice.rpc and choice.rpc != settings.url) or choice.cookie:
        raise ConfigError("which node has the wallet?", remedy="give --rpc URL and --cookie FILE together")
    endpoint = settings.build_endpoint()
    return RpcEndpoint(f"{endpoint.url}/wallet/{choice.wallet}", endpoint.auth)
