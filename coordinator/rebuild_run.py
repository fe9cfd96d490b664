"""`peg rebuild` as a process: opens everything a coordinator is connected to, rebuilds the store, and ends."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.config import CoordinatorConfig
from coordinator.links import Links, open_links
from coordinator.mempool.identity import StoreIdentity
from coordinator.mempool.opening import MempoolOptions, open_redis_mempool
from coordinator.patience import run_beside, wait_for_dependency
from coordinator.rebuild import Rebuilt, rebuild
from coordinator.tenure import Tenure
from smpc.host.process import lock_data_directory
from smpc.node.bitcoind_check import require_usable
from smpc.types import BtcHeight, KaonHeight


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What the store holds now, and up to which blocks of both chains."""

    rebuilt: Rebuilt
    kaon_height: KaonHeight
    btc_height: BtcHeight


async def run_rebuild(config: CoordinatorConfig) -> RebuildReport:
    """Wipe this network's records and restore them from both chains.

    Conflict while the coordinator runs, ConfigError or StoreUnavailable when a node or the store cannot be used; and
    as `coordinator.rebuild.rebuild`.
    """
    with lock_data_directory(config.data_dir):
        async with open_links(config) as links:
            require_usable(await links.node.check_node())
            await wait_for_dependency("consensus", links.consensus.fetch_tip)
            return await run_beside(links.replica.run(), _rebuild(config, links))


async def _rebuild(config: CoordinatorConfig, links: Links) -> RebuildReport:
    await links.replica.wait_synced()
    identity = StoreIdentity(config.network, links.genesis.genesis_hash)
    options = MempoolOptions(is_rebuild=True)
    async with open_redis_mempool(config.store.find_url(), identity, options) as mempool:
        tenure = Tenure(mempool.leases, links.identity.hex(), config.store.lease_seconds)
        async with tenure.hold() as lease:
            work = rebuild(
                store=mempool.store,
                token=lease.token,
                node=links.node,
                feed=links.node,
                view=lambda: links.replica.ledger,
            )
            rebuilt = await run_beside(tenure.keep(lease), work)
    return RebuildReport(rebuilt, links.replica.ledger.height, (await links.node.fetch_tip()).height)
