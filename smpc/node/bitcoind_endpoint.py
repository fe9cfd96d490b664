"""Where a bitcoind answers and who we are to it: address, cookie file or user, deadline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import httpx

from smpc.errors import ConfigError, Unavailable


@dataclass(frozen=True, slots=True)
class CookieFile:
    """bitcoind's own `.cookie`; it changes each time the node starts and is read again then."""

    path: Path


@dataclass(frozen=True, slots=True)
class UserPassword:
    """A user of -rpcauth or -rpcuser. The password is never shown."""

    user: str
    password: str = field(repr=False)


_URL_REMEDY: Final = "give http://host:port"

RpcAuth: TypeAlias = CookieFile | UserPassword


@dataclass(frozen=True, slots=True)
class RpcEndpoint:
    """Where and how to reach a node. `deadline_seconds` bounds each call, all its retries included.

    `url` is `http://host:port`, or `http://host:port/wallet/name` for wallet calls; never with credentials in it.
    """

    url: str
    auth: RpcAuth
    deadline_seconds: float = 30.0
    attempts: int = 6

    def __post_init__(self) -> None:
        """Refuse an address that is not one (ConfigError)."""
        # A password may stand before the @: no error text shows that part.
        shown = self.url.rpartition("@")[2][:200]
        try:
            url = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError):
            raise ConfigError(f"bitcoind address {shown!r} is not a URL", remedy=_URL_REMEDY) from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigError(f"bitcoind address {shown!r} has no scheme or host", remedy=_URL_REMEDY)
        if url.userinfo:
            raise ConfigError("bitcoind address must not contain a password", remedy="give a cookie file or a user")
        if self.deadline_seconds <= 0 or self.attempts < 1:
            raise ConfigError("bitcoind deadline and attempts must be positive")


def read_credentials(auth: RpcAuth) -> tuple[str, str]:
    """Return user and password as they are now; Unavailable while there is no cookie, ConfigError if unreadable."""
    match auth:
        case UserPassword(user, password):
            return user, password
        case CookieFile(path):
            return _read_cookie(path)


def _read_cookie(path: Path) -> tuple[str, str]:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise Unavailable(f"no cookie file at {path}", remedy="is bitcoind running with this data directory?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the cookie file {path}: {type(error).__name__}") from None
    user, colon, password = text.partition(":")
    if not colon:
        raise ConfigError(f"{path} is no bitcoind cookie (user:password)")
    return user, password
