"""Ledger rules of punishments: who is slashed, who is jailed and for how long (design.md section 6) [R5, R10].

Nobody is slashed but for what its own signatures prove. Everything else only jails: silence, bad service, membership
in a group whose signature names nobody. Both keep a validator out of draws, votes and commissions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smpc.protocol.ledger_events import MemberPunished
from smpc.protocol.ledger_heartbeats import is_jailed
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.verdict_state import Misdeed, Penalty, Punishment
from smpc.types import IdentityKey, KaonHeight, RecordId, Role

MAX_TERMS: Final = 5
"""Who was jailed as often is out for ever."""

FOREVER: Final = KaonHeight(2**62)
"""The last block of a term that never ends."""


def punish_silence(tables: LedgerTables) -> None:
    """Jail every validator that the block finds silent and who is not jailed yet.

    Who is still silent when his term ends stays for as long again: that is the same outage, not another one, or a few
    hours without power were an eternal ban.
    """
    for identity in sorted(tables.stakes):
        if not is_silent(tables, identity) or is_jailed(tables, identity):
            continue
        if _is_same_outage(tables, identity):
            _prolong(tables, identity)
        else:
            jail(tables, identity, Misdeed.SILENCE, f"no heartbeat for {tables.params.silence_blocks} final blocks")


def is_silent(tables: LedgerTables, identity: IdentityKey) -> bool:
    """Tell whether `silence_blocks` final blocks passed since a validator's last heartbeat.

    While nothing becomes final, nobody is silent: then more than one or two are cut off, and nobody knows who.
    """
    known = tables.heartbeats.get(identity)
    last = known.recorded if known is not None else 0
    return tables.head.final_height - last > tables.params.silence_blocks


def is_good(tables: LedgerTables, identity: IdentityKey) -> bool:
    """Tell whether a member is neither convicted nor jailed nor silent."""
    return not is_jailed(tables, identity) and not is_silent(tables, identity)


def list_good(tables: LedgerTables, entry: EpochEntry, role: Role) -> tuple[IdentityKey, ...]:
    """Return who of a keyed group holds a share and is good, in the group's order."""
    return tuple(member for member in entry.groups[role].members if is_good(tables, member))


def slash(tables: LedgerTables, identity: IdentityKey, evidence: RecordId, detail: str) -> bool:
    """Take a validator's whole stake for a proven offence and bar it for ever; False when that was done before."""
    known = tables.judgements.punishments.get(identity, ())
    if any(item.penalty is Penalty.SLASHED for item in known):
        return False
    stake = tables.stakes.get(identity, 0)
    height = tables.head.height
    tables.put(tables.jailed, identity, FOREVER)
    _note(tables, Punishment(identity, Penalty.SLASHED, Misdeed.OFFENCE, height, None, stake, evidence, detail))
    return True


def jail(
    tables: LedgerTables, identity: IdentityKey, misdeed: Misdeed, detail: str, evidence: RecordId | None = None
) -> None:
    """Jail a validator, twice as long each time and in the end for ever; one who is jailed already stays as he is.

    But not for a group's signature: that is judged once, so a term that ends in this very block would be all there is.
    Its term begins when the one being served ends; nothing is added to one that never does.
    """
    serving = is_jailed(tables, identity)
    if serving and (misdeed is not Misdeed.GROUP_SIGNATURE or tables.jailed[identity] == FOREVER):
        return
    height = tables.head.height
    begins = tables.jailed[identity] if serving else height
    terms = sum(item.penalty is Penalty.JAILED for item in tables.judgements.punishments.get(identity, ()))
    until = compute_term_end(tables.params.epoch_blocks, terms, begins)
    tables.put(tables.jailed, identity, FOREVER if until is None else until)
    _note(tables, Punishment(identity, Penalty.JAILED, misdeed, height, until, 0, evidence, detail))


def compute_term_end(epoch_blocks: int, terms: int, height: KaonHeight) -> KaonHeight | None:
    """Return the last block of a term that begins at `height` after `terms` earlier ones; None for ever."""
    return None if terms + 1 >= MAX_TERMS else KaonHeight(height + epoch_blocks * 2**terms)


def _is_same_outage(tables: LedgerTables, identity: IdentityKey) -> bool:
    """Tell whether a silent validator's last punishment was for this very silence: no heartbeat came since."""
    known = tables.judgements.punishments.get(identity, ())
    beat = tables.heartbeats.get(identity)
    return bool(known) and known[-1].misdeed is Misdeed.SILENCE and (beat is None or beat.recorded < known[-1].recorded)


def _prolong(tables: LedgerTables, identity: IdentityKey) -> None:
    """Let the last term last as long again, from this block on; it counts as one."""
    *earlier, last = tables.judgements.punishments[identity]
    terms = sum(item.penalty is Penalty.JAILED for item in earlier)
    until = compute_term_end(tables.params.epoch_blocks, terms, tables.head.height)
    tables.put(tables.jailed, identity, FOREVER if until is None else until)
    tables.put(tables.judgements.punishments, identity, (*earlier, replace(last, until=until)))


def _note(tables: LedgerTables, item: Punishment) -> None:
    known = tables.judgements.punishments.get(item.identity, ())
    tables.put(tables.judgements.punishments, item.identity, (*known, item))
    tables.events.append(MemberPunished(item.identity, item.penalty, item.misdeed))
