"""`peg epoch verify`, `peg notarised`: what anyone can check for himself, from the chain his own node has.

Both replay the consensus layer from its genesis in this process; no coordinator and no node is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.ids import parse_epoch
from coordinator.cli.output import Answer
from smpc.bitcoin.transaction import parse_transaction
from smpc.errors import ConfigError, ExitCode, NotFound
from smpc.node.final_chain import FinalChain, replay_chain
from smpc.node.genesis import load_genesis
from smpc.node.ports import BitcoinNode
from smpc.protocol.election import Draw, Successor
from smpc.protocol.ledger_draws import compute_members_after, find_draw_of, find_successor_of
from smpc.protocol.ledger_state import Anchor, EpochEntry, GroupMembers, Replacement
from smpc.protocol.notarisation import Burial, find_notarisation
from smpc.types import EpochNumber, IdentityKey, KaonHeight, Role, to_display_hex

_ROLES: Final = (Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY)


@dataclass(frozen=True, slots=True)
class ElectionCheck:
    """An epoch's recorded groups beside the ones drawn again here."""

    entry: EpochEntry
    seed_height: KaonHeight
    draw: Draw | None
    """None when the recorded seed does not follow from the chain, or no draw exists."""
    successors: tuple[Successor | None, ...] = ()
    """Who takes the place of each member that was replaced for a proven fault, drawn again here."""

    @property
    def recorded(self) -> GroupMembers:
        """The groups on the ledger as they were drawn, in the order V, W, E."""
        drawn = compute_members_after(self.entry, 0)
        return tuple((role, drawn[role]) for role in _ROLES)

    @property
    def is_same(self) -> bool:
        """Tell whether the draw gives exactly the recorded groups, and the recorded successors after it."""
        drawn = tuple((each.identity, each.bound) if each else (None, 0) for each in self.successors)
        recorded = tuple((item.successor, item.bound) for item in self.entry.replaced)
        return self.draw is not None and self.draw.members == self.recorded and drawn == recorded


@dataclass(frozen=True, slots=True)
class NotarisedHeight:
    """Which Bitcoin transaction buries a height, and what the own Bitcoin node says of it."""

    height: KaonHeight
    burial: Burial | None
    confirmations: int | None = None
    """None without a Bitcoin node; 0 while it does not stand in a block."""
    is_contradicted: bool = False
    """The transaction on Bitcoin notarises something else than this chain has at its height."""
    needed: int = 0
    """Confirmations from which it buries."""

    @property
    def is_buried(self) -> bool:
        """Tell whether the height is notarised, as far as is known here: without a Bitcoin node by the ledger alone."""
        is_deep = self.confirmations is None or self.confirmations >= self.needed
        return self.burial is not None and not self.is_contradicted and is_deep


def add_commands(app: typer.Typer, epoch_app: typer.Typer) -> None:
    """Add `peg notarised`, and `verify` to `peg epoch`."""
    examples = ("peg epoch verify 0", "peg epoch verify 7 --json")
    command(epoch_app, "verify", schema="epoch verify", examples=examples)(verify_epoch)
    command(app, "notarised", examples=("peg notarised", "peg notarised 4200 --json"))(show_notarised)


async def verify_epoch(desk: Desk, number: Annotated[int, typer.Argument(help="The epoch's number.")]) -> Answer:
    """Draw an epoch's groups again from the stakes and the chain's own randomness; exit code 7 when they differ."""
    wanted = parse_epoch(number)
    chain = await _replay(desk)
    check = check_election(chain, wanted)
    code = ExitCode.DONE if check.is_same else ExitCode.CHECK_FAILED
    return Answer(_describe_election(chain, check), _build_election_table(check), code)


async def show_notarised(
    desk: Desk,
    height: Annotated[int | None, typer.Argument(help="Consensus-layer height.", show_default="the final one")] = None,
) -> Answer:
    """Show the Bitcoin transaction that buries a consensus-layer height; exit code 7 when the two contradict."""
    chain = await _replay(desk)
    wanted = chain.ledger.height if height is None else KaonHeight(height)
    found = await find_notarised(chain, wanted, _find_bitcoin(desk))
    code = ExitCode.CHECK_FAILED if found.is_contradicted else ExitCode.DONE
    return Answer(_describe_notarised(found), _say_notarised(found), code)


def check_election(chain: FinalChain, number: EpochNumber) -> ElectionCheck:
    """Draw an announced epoch again; NotFound when it is not announced."""
    ledger = chain.ledger
    entry = ledger.epochs.get(number)
    if entry is None:
        raise NotFound(f"epoch {number} is not announced", remedy="epoch N + 2 is announced when N becomes active")
    seed_height = entry.origin.seed_height if entry.origin is not None else KaonHeight(0)
    before = ledger.epochs.get(EpochNumber(number - 1))
    draw = find_draw_of(ledger.params, ledger.genesis, entry, before, chain.hashes[seed_height])
    successors = tuple(find_successor_of(ledger.genesis, entry, place) for place in range(len(entry.replaced)))
    return ElectionCheck(entry, seed_height, draw, successors)


async def find_notarised(chain: FinalChain, height: KaonHeight, node: BitcoinNode | None) -> NotarisedHeight:
    """Find what buries a height and compare it with the Bitcoin node; NotFound for a height that is not final."""
    if not 0 <= height <= chain.ledger.height:
        raise NotFound(f"block {height} is not final: {chain.ledger.height} is", remedy="ask again later")
    burial, needed = chain.ledger.find_burial(height), chain.ledger.params.confirmations
    if burial is None or node is None:
        return NotarisedHeight(height, burial, needed=needed)
    status = await node.fetch_transaction(burial.txid)
    if status is None:
        return NotarisedHeight(height, burial, 0, needed=needed)
    anchor = next(item for item in chain.ledger.anchors.values() if item.height == burial.height)
    return NotarisedHeight(height, burial, status.confirmations, not _notarises(status.raw, anchor), needed)


def _notarises(raw: bytes, anchor: Anchor) -> bool:
    said = [find_notarisation(output.script) for output in parse_transaction(raw).outputs]
    return any(
        item is not None and (item.block_hash, item.state_root) == (anchor.block_hash, anchor.state_root)
        for item in said
    )


async def _replay(desk: Desk) -> FinalChain:
    desk.output.note("replaying the consensus layer")
    return await replay_chain(desk.consensus, load_genesis(desk.profile.genesis), desk.params)


def _find_bitcoin(desk: Desk) -> BitcoinNode | None:
    try:
        return desk.bitcoin
    except ConfigError:
        return None


def _describe_election(chain: FinalChain, check: ElectionCheck) -> dict[str, Any]:
    origin, draw = check.entry.origin, check.draw
    validators = chain.ledger.genesis.validators
    return {
        "epoch": check.entry.number,
        "is_verified": check.is_same,
        "draw": check.entry.draw,
        "seed": origin.seed.hex() if origin is not None else None,
        "seed_kaon_height": check.seed_height,
        "seed_block_hash": chain.hashes[check.seed_height].hex(),
        "bound": draw.bound if draw is not None else None,
        "strict_bound": draw.strict_bound if draw is not None else None,
        "is_relaxed": draw.is_relaxed if draw is not None else None,
        "redraws": draw.redraws if draw is not None else None,
        "jailed": [key.hex() for key in origin.jailed] if origin is not None else [],
        "stakes": [{"identity": item.identity.hex(), "stake": item.stake} for item in validators],
        "groups": [{"role": str(role), "members": [key.hex() for key in keys]} for role, keys in check.recorded],
        "drawn": [
            {"role": str(role), "members": [key.hex() for key in keys]} for role, keys in (draw.members if draw else ())
        ],
        "replaced": [_describe_replacement(*pair) for pair in zip(check.entry.replaced, check.successors, strict=True)],
    }


def _describe_replacement(item: Replacement, drawn: Successor | None) -> dict[str, Any]:
    return {
        "role": str(item.role),
        "attempt": item.attempt,
        "accused": item.accused.hex(),
        "successor": item.successor.hex() if item.successor is not None else None,
        "drawn": drawn.identity.hex() if drawn is not None else None,
        "bound": item.bound,
        "is_relaxed": drawn is not None and drawn.bound > drawn.strict_bound,
        "recorded_kaon_height": item.recorded,
    }


def _build_election_table(check: ElectionCheck) -> Table:
    verdict = "drawn again: the same" if check.is_same else "NOT the groups this chain draws"
    relaxed = "; the bound on shared members is relaxed" if check.draw is not None and check.draw.is_relaxed else ""
    table = Table("group", "recorded", "drawn here", title=f"epoch {check.entry.number}: {verdict}{relaxed}")
    drawn = dict(check.draw.members) if check.draw is not None else {}
    for role, members in check.recorded:
        table.add_row(str(role), _shorten(members), _shorten(drawn.get(role, ())))
    for item, successor in zip(check.entry.replaced, check.successors, strict=True):
        told = f"{_shorten((item.accused,))} at fault, {_name_successor(item.successor)}"
        table.add_row(str(item.role), told, _name_successor(successor.identity if successor is not None else None))
    return table


def _name_successor(successor: IdentityKey | None) -> str:
    return "left out" if successor is None else f"{_shorten((successor,))} in its place"


def _shorten(members: tuple[bytes, ...]) -> str:
    return " ".join(member.hex()[:8] for member in members)


def _describe_notarised(found: NotarisedHeight) -> dict[str, Any]:
    burial = found.burial
    return {
        "kaon_height": found.height,
        "is_notarised": found.is_buried,
        "is_contradicted": found.is_contradicted,
        "notarised_kaon_height": burial.height if burial else None,
        "notarised_block_hash": burial.block_hash.hex() if burial else None,
        "txid": to_display_hex(burial.txid) if burial else None,
        "confirmations": found.confirmations,
    }


def _say_notarised(found: NotarisedHeight) -> str:
    burial = found.burial
    if burial is None:
        return f"block {found.height} is final but not notarised yet: no sweep that buries it is booked"
    if found.is_contradicted:
        return (
            f"CONTRADICTION: {to_display_hex(burial.txid)} notarises another block {burial.height} than this chain has"
        )
    if not found.is_buried:
        seen = f"{found.confirmations} of {found.needed} confirmations"
        return f"block {found.height} is not buried now: {to_display_hex(burial.txid)} has {seen}"
    deep = "ask a Bitcoin node how deep" if found.confirmations is None else f"{found.confirmations} confirmations"
    return f"block {found.height} is buried by {to_display_hex(burial.txid)} (block {burial.height}), {deep}"
