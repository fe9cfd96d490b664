"""The command line of a devnet's one bitcoind: regtest, loopback, every index and user its participants need."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coordinator.devnet.bitcoind_binary import BitcoindBinary
from coordinator.devnet.rpc_users import RpcUser

TEN_YEARS_SECONDS = 315_360_000


def build_argv(binary: BitcoindBinary, datadir: Path, port: int, users: Iterable[RpcUser]) -> tuple[str, ...]:
    """Return the command that starts the node. Its cookie stays in force beside the users."""
    return (
        *binary.argv,
        "-regtest",
        f"-datadir={datadir}",
        "-server=1",
        "-rpcbind=127.0.0.1",
        "-rpcallowip=127.0.0.1",
        f"-rpcport={port}",
        # Every pod asks at the same moment when an intent is proposed (design.md section 11).
        "-rpcthreads=32",
        "-rpcworkqueue=256",
        "-txindex=1",
        "-listen=0",
        "-connect=0",
        "-dnsseed=0",
        "-fallbackfee=0.0001",
        # A devnet that rested for days is not behind: nobody else mines its chain.
        f"-maxtipage={TEN_YEARS_SECONDS}",
        "-dbcache=16",
        "-maxmempool=50",
        "-par=1",
        "-printtoconsole=0",
        *(user.build_option() for user in users),
    )
