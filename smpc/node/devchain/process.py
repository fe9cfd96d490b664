"""`peg-devchain`: the embedded consensus layer as a process of its own.

peg-devchain run --config devchain.toml [--dry-run] [--parent PID]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from pegbridge.v1.consensus_pb2_grpc import add_ConsensusServiceServicer_to_server
from smpc.curve import SecretKey, blind_context, compute_xonly_key
from smpc.errors import BridgeError, ConfigError, ExitCode
from smpc.host.config import SecretFile, load_config
from smpc.host.counters import Counters
from smpc.host.gates import AccessGate, RateGate
from smpc.host.grpc_server import OWN_SERVICES, RpcServer
from smpc.host.interceptors import GuardedCalls
from smpc.host.keystore import open_keystore
from smpc.host.log import LogLevel, configure_logging
from smpc.host.pki import TlsFiles
from smpc.host.process import die_with_parent, harden_process, lock_data_directory, raise_file_limit, stop_on_signals
from smpc.node.devchain.block_store import BlockStore
from smpc.node.devchain.chain import DevChain
from smpc.node.devchain.servicer import ACCESS, SERVICE, ConsensusServicer
from smpc.node.genesis import load_genesis
from smpc.params import find_preset
from smpc.protocol.records import Genesis
from smpc.types import IdentityKey, Network

ENV_PREFIX: Final = "PEG_DEVCHAIN"

GRACE_SECONDS: Final = 3.0
"""How long running calls may take when the process is told to stop."""

SUBMISSIONS_PER_SECOND: Final = 200.0
SUBMISSION_BURST: Final = 2_000
"""Submissions one caller may make; each costs the proposer a signature check or more."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DevchainConfig:
    """The configuration file; `devchain.example.toml` beside this module describes every key."""

    network: Network
    data_dir: Path
    genesis: Path
    keystore: Path
    """Holds the key whose public half the genesis names as proposer."""
    passphrase: SecretFile
    tls: TlsFiles
    listen: str = "127.0.0.1:0"
    """Port 0 lets the system choose; the address served is written to `<data_dir>/endpoint`."""
    block_millis: int = 0
    """Time between blocks; 0 takes the genesis's."""
    log_level: LogLevel = LogLevel.INFO


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process; its exit code says how it went (design.md section 11)."""
    arguments = _parse(argv)
    configure_logging(LogLevel.INFO, process="devchain")
    try:
        if arguments.parent is not None:
            die_with_parent(arguments.parent)
        config = load_config(DevchainConfig, arguments.config, ENV_PREFIX)
        configure_logging(config.log_level, process="devchain")
        harden_process(secrets=True)
        blind_context(secrets.token_bytes(32))
        return asyncio.run(_check(config) if arguments.dry_run else _run(config))
    except BridgeError as error:
        # A stack adds nothing: the message names what is wrong and the remedy what to do.
        log.error("process.failed", code=error.code, message=error.message, remedy=error.remedy)  # noqa: TRY400
        return int(error.exit_code)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="peg-devchain", description="The embedded consensus layer.")
    parser.add_argument("command", choices=["run"], help="serve the chain and make its blocks")
    parser.add_argument("--config", type=Path, required=True, help="the TOML configuration file")
    parser.add_argument("--dry-run", action="store_true", help="check configuration, genesis and keys, then stop")
    parser.add_argument("--parent", type=int, help="end when this process, our parent, ends")
    return parser.parse_args(argv)


async def _check(config: DevchainConfig) -> int:
    genesis, proposer = _read_identity(config)
    proposer.wipe()
    sys.stdout.write(json.dumps({"network": genesis.network, "genesis_hash": genesis.genesis_hash.hex()}) + "\n")
    return ExitCode.DONE


async def _run(config: DevchainConfig) -> int:
    genesis, proposer = _read_identity(config)
    host, port = _split_address(config.listen)
    raise_file_limit()
    stopped = stop_on_signals()
    with lock_data_directory(config.data_dir):
        async with _open_chain(config, genesis, proposer) as chain:
            server = _build_server(config, genesis, chain)
            endpoint = f"{host}:{await server.start(host, port)}"
            (config.data_dir / "endpoint").write_text(f"{endpoint}\n", encoding="ascii")
            log.info("process.started", endpoint=endpoint, height=chain.ledger.height)
            try:
                await _produce_until(stopped, chain, config.block_millis or genesis.block_millis)
            finally:
                await server.stop(GRACE_SECONDS)
    log.info("process.stopped")
    return ExitCode.DONE


@asynccontextmanager
async def _open_chain(config: DevchainConfig, genesis: Genesis, proposer: SecretKey) -> AsyncIterator[DevChain]:
    store = await asyncio.to_thread(BlockStore.open, config.data_dir, genesis.genesis_hash)
    try:
        chain = DevChain(genesis, find_preset(genesis.network), proposer, store)
        await chain.load()
        yield chain
    finally:
        store.close()


async def _produce_until(stopped: asyncio.Event, chain: DevChain, block_millis: int) -> None:
    seconds = block_millis / 1000
    due = time.monotonic() + seconds
    while not stopped.is_set():
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await stopped.wait()
        except TimeoutError:
            await chain.produce(time.time_ns() // 1_000_000)
            # A late block does not make the next ones hurry.
            due = max(due + seconds, time.monotonic())


def _build_server(config: DevchainConfig, genesis: Genesis, chain: DevChain) -> RpcServer:
    gates = (
        AccessGate(genesis.network, {**OWN_SERVICES, **ACCESS}),
        RateGate(
            genesis.network,
            per_second=SUBMISSIONS_PER_SECOND,
            burst=SUBMISSION_BURST,
            methods=frozenset({f"/{SERVICE}/Submit", f"/{SERVICE}/Challenge"}),
        ),
    )
    server = RpcServer(GuardedCalls(gates, Counters()), config.tls)
    add_ConsensusServiceServicer_to_server(ConsensusServicer(chain), server.grpc)
    server.announce([SERVICE])
    return server


def _read_identity(config: DevchainConfig) -> tuple[Genesis, SecretKey]:
    genesis = load_genesis(config.genesis)
    if genesis.network is not config.network:
        raise ConfigError(
            f"the genesis file is for {genesis.network}, the configuration for {config.network}",
            remedy="use one network's files",
        )
    proposer = open_keystore(config.keystore, config.passphrase.read_passphrase(), network=config.network)
    if IdentityKey(compute_xonly_key(proposer)) != genesis.proposer:
        raise ConfigError(
            f"{config.keystore} is not the key of the genesis's proposer", remedy="use that network's keystore"
        )
    return genesis, proposer


def _split_address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    is_number = len(port) <= 5 and port.isascii() and port.isdigit()
    if not colon or not host or not is_number or int(port) > 0xFFFF:
        raise ConfigError(f"listen must be host:port, got {text[:80]!r}", remedy="give for example 127.0.0.1:7000")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
