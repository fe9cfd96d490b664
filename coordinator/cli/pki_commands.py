"""`peg pki`: a network's certificate authority and the certificates of its processes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer
from smpc.curve import is_valid_xonly
from smpc.errors import InvalidInput
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import init_ca, issue_certificate, read_expiry
from smpc.types import IdentityKey, Network

app = typer.Typer(help="The network's certificate authority; one certificate per process, identity in its SAN URI.")

NetworkOption = Annotated[Network, typer.Option(help="The network the certificates are for.")]
_HOSTS = ["localhost", "127.0.0.1", "::1"]


@command(app, "init", schema="pki init", examples=("peg pki init --directory pki --network regtest",))
async def create_authority(
    desk: Desk,
    directory: Annotated[Path, typer.Option(help="Where ca.key and ca.crt go.")],
    network: NetworkOption = Network.REGTEST,
) -> Answer:
    """Create the authority of a network. Keep ca.key offline."""
    desk.output.network = network
    init_ca(directory, network)
    paths = {"ca_key": str(directory / "ca.key"), "ca_cert": str(directory / "ca.crt")}
    return Answer(paths, f"{paths['ca_cert']} and {paths['ca_key']}: keep the key offline")


@command(
    app,
    "issue",
    schema="pki issue",
    examples=(
        "peg pki issue --authority pki --role participant --identity 79be...98 --out pod/tls --host pod.example",
    ),
)
async def issue(
    desk: Desk,
    authority: Annotated[Path, typer.Option(help="Directory with ca.key and ca.crt.")],
    role: Annotated[PeerRole, typer.Option(help="What the holder is to the network.")],
    identity: Annotated[str, typer.Option(help="The holder's identity key, 64 hex digits.")],
    out: Annotated[Path, typer.Option(help="Where ca.crt, tls.crt and tls.key go.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Name or IP it answers for; repeat.", show_default="localhost")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Replace the certificate that is there.")] = False,
    network: NetworkOption = Network.REGTEST,
) -> Answer:
    """Issue a certificate for an identity."""
    desk.output.network = network
    holder = PeerIdentity(network, role, _parse_identity(identity))
    files = issue_certificate(authority, holder, out, hosts=host or _HOSTS, renew=renew)
    expires = read_expiry(files.cert).isoformat()
    data = {"uri": holder.uri, "ca": str(files.ca), "cert": str(files.cert), "key": str(files.key), "expires": expires}
    return Answer(data, f"{holder.uri}\n{files.cert}, {files.key}\nexpires {expires}")


def _parse_identity(text: str) -> IdentityKey:
    key = bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else b""
    if not is_valid_xonly(key):
        raise InvalidInput(f"{text[:80]!r} is no identity key", remedy="give the 64 hex digits of an x-only key")
    return IdentityKey(key)
