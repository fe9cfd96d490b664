"""Judge a bitcoind from gathered facts: right chain, young enough, complete enough, synced (case H2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.network import get_constants
from smpc.errors import ConfigError
from smpc.node.ports import MAX_BLOCKS_BEHIND, Finding, Verdict
from smpc.params import PRESETS
from smpc.types import BlockHash, Network, to_display_hex

MIN_VERSION: Final = 280_000
"""Bitcoin Core 28: JSON-RPC 2.0, package relay, TRUC and pay-to-anchor (design.md section 10)."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself.

    `tip_time` is its best header's time in Unix seconds; `txindex_height` is None when it keeps no transaction index.
    """

    chain: str
    genesis: BlockHash
    version: int
    user_agent: str
    height: int
    headers: int
    tip_time: int
    is_downloading: bool
    is_pruned: bool
    txindex_height: int | None
    is_txindex_synced: bool
    connections: int


def judge_node(facts: NodeFacts, network: Network, now: int) -> tuple[Finding, ...]:
    """Return one finding per check, failures included; `now` is the judge's time in Unix seconds."""
    return (
        _judge_chain(facts, network),
        _judge_genesis(facts, network),
        _judge_version(facts),
        _judge_pruning(facts),
        _judge_txindex(facts),
        _judge_sync(facts),
        _judge_tip_age(facts, network, now),
        _judge_peers(facts, network),
    )


def build_unreachable(detail: str, remedy: str) -> tuple[Finding, ...]:
    """Return the single finding about a node that could not be asked."""
    return (Finding("bitcoind.connection", Verdict.FAILED, detail, remedy),)


def require_usable(findings: tuple[Finding, ...]) -> None:
    """Raise ConfigError that names every failed check; warnings pass."""
    failed = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    if failed:
        raise ConfigError(
            "this Bitcoin node cannot be used: " + "; ".join(finding.detail for finding in failed),
            remedy="; ".join(_unique(finding.remedy for finding in failed)),
            code="NODE_UNUSABLE",
        )


def _judge_chain(facts: NodeFacts, network: Network) -> Finding:
    wanted = get_constants(network).chain_name
    return _judge(
        "bitcoind.chain",
        facts.chain == wanted,
        f"the node is on chain {facts.chain!r}, this deployment on {wanted!r}",
        "point the configuration at a node of the right network",
    )


def _judge_genesis(facts: NodeFacts, network: Network) -> Finding:
    wanted = get_constants(network).genesis_hash
    return _judge(
        "bitcoind.genesis",
        facts.genesis == wanted,
        f"the node's genesis block is {to_display_hex(facts.genesis)}, {network} has {to_display_hex(wanted)}",
        "point the configuration at a node of the right network",
    )


def _judge_version(facts: NodeFacts) -> Finding:
    return _judge(
        "bitcoind.version",
        facts.version >= MIN_VERSION,
        f"the node runs {facts.user_agent} ({facts.version}), at least {MIN_VERSION} is needed",
        "install Bitcoin Core or Knots 28 or later",
    )


def _judge_pruning(facts: NodeFacts) -> Finding:
    return _judge(
        "bitcoind.pruning",
        not facts.is_pruned,
        "the node has pruned old blocks" if facts.is_pruned else "the node keeps all blocks",
        "remove prune= from bitcoin.conf and download the chain again",
    )


def _judge_txindex(facts: NodeFacts) -> Finding:
    if facts.txindex_height is None:
        return Finding(
            "bitcoind.txindex", Verdict.FAILED, "the node keeps no transaction index", "start bitcoind with -txindex=1"
        )
    return _judge(
        "bitcoind.txindex",
        facts.is_txindex_synced,
        f"the transaction index stands at block {facts.txindex_height} of {facts.height}",
        "wait until bitcoind has built its transaction index",
    )


def _judge_sync(facts: NodeFacts) -> Finding:
    state = "still in its initial block download" if facts.is_downloading else "past its initial block download"
    return _judge(
        "bitcoind.sync",
        not facts.is_downloading and facts.headers - facts.height <= MAX_BLOCKS_BEHIND,
        f"the node is {state}, at block {facts.height} of {facts.headers}",
        "wait until bitcoind has caught up; on a new regtest chain mine one block",
    )


def _judge_tip_age(facts: NodeFacts, network: Network, now: int) -> Finding:
    preset = PRESETS.get(network)
    limit = preset.max_tip_age_seconds if preset else 0
    age = now - facts.tip_time
    return _judge(
        "bitcoind.tip_age",
        limit == 0 or age <= limit,
        f"the node's best block is {age} s old" + (f", at most {limit} s are accepted" if limit else ""),
        "check the node's peers and this machine's clock",
    )


def _judge_peers(facts: NodeFacts, network: Network) -> Finding:
    is_alone = facts.connections == 0 and network is not Network.REGTEST
    verdict = Verdict.WARNING if is_alone else Verdict.OK
    remedy = "check the node's network access" if is_alone else ""
    return Finding("bitcoind.peers", verdict, f"the node has {facts.connections} peers", remedy)


def _judge(check: str, holds: bool, detail: str, remedy: str) -> Finding:
    return Finding(check, Verdict.OK, detail) if holds else Finding(check, Verdict.FAILED, detail, remedy)


def _unique(texts: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
