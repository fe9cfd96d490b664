"""kBTC: transfers, pay-ins, burns, raised limits and cancels, each under an account's signature and next nonce."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from smpc.errors import Refused
from smpc.params import REGTEST
from smpc.protocol.invoices import compute_fee_out, compute_least_raise
from smpc.protocol.ledger_destinations import derive_vault_scripts
from smpc.protocol.ledger_events import KbtcMoved
from smpc.protocol.ledger_state import BurnStatus
from smpc.protocol.records import (
    RESERVE_ACCOUNT,
    AccountTransfer,
    BurnCancelled,
    BurnRaised,
    BurnRequested,
)
from smpc.types import AccountKey, BurnId, EpochNumber, FeeRate, Sats, Script
from tests.support.chain import LedgerChain, destination
from tests.support.groups import make_account, make_secret, make_xonly, sign

ALICE = make_account("alice")[1]
BOB = make_account("bob")[1]

Signed = AccountTransfer | BurnRequested | BurnCancelled | BurnRaised


def funded(value: int = 1_000_000) -> LedgerChain:
    chain = LedgerChain.activated()
    chain.fund("alice", value, 1)
    return chain


def resigned(record: Signed, user: str = "alice") -> Signed:
    return replace(record, signature=sign(make_account(user)[0], record.digest))


# ------------------------------------------------------------------ transfers


def test_a_transfer_moves_kbtc_and_uses_up_a_nonce() -> None:
    chain = funded()
    events = chain.add(chain.make_send("alice", BOB, 5))
    assert events == (KbtcMoved(ALICE, BOB, Sats(5)),)
    assert chain.ledger.get_account(ALICE).nonce == 1
    assert chain.ledger.get_account(BOB) == replace(chain.ledger.get_account(BOB), balance=Sats(5), nonce=0)
    assert chain.ledger.supply == 995_250


@pytest.mark.parametrize(("amount", "is_taken"), [(0, False), (1, True), (995_250, True), (995_251, False)])
def test_a_transfer_moves_from_1_sat_to_the_whole_balance(amount: int, is_taken: bool) -> None:
    chain = funded()
    record = chain.make_send("alice", BOB, amount)
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) in {"AMOUNT", "INSUFFICIENT_BALANCE"}


def test_a_transfer_to_oneself_keeps_the_balance() -> None:
    chain = funded()
    chain.add(chain.make_send("alice", ALICE, 995_250))
    assert chain.ledger.get_account(ALICE).balance == 995_250


def test_a_transfer_to_the_reserve_is_a_pay_in() -> None:
    chain = funded()
    reserve = chain.ledger.reserve
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, 1_000))
    assert chain.ledger.reserve == reserve + 1_000
    assert chain.ledger.supply == 994_250


def test_nobody_spends_the_reserve() -> None:
    chain = funded()
    record = replace(chain.make_send("alice", BOB, 1), sender=RESERVE_ACCOUNT, nonce=0)
    assert chain.refusal(resigned(record)) == "BAD_SIGNATURE"


def test_refuses_a_recipient_that_is_no_key() -> None:
    chain = funded()
    assert chain.refusal(chain.make_send("alice", AccountKey(b"\xff" * 32), 1)) == "BAD_KEY"


def test_a_replayed_transfer_is_refused_and_the_next_one_needs_the_next_nonce() -> None:
    chain = funded()
    record = chain.make_send("alice", BOB, 1)
    chain.add(record)
    assert chain.refusal(record) == "ALREADY_RECORDED"
    assert chain.refusal(resigned(replace(record, amount=Sats(2)))) == "WRONG_NONCE"
    assert chain.refusal(resigned(replace(record, nonce=2))) == "WRONG_NONCE"
    chain.add(resigned(replace(record, nonce=1)))


def test_a_refused_record_uses_up_no_nonce() -> None:
    chain = funded()
    chain.refusal(chain.make_send("alice", BOB, 10**12))
    chain.add(chain.make_send("alice", BOB, 1))


# ------------------------------------------------------------------ signatures


def records(chain: LedgerChain) -> list[Signed]:
    burn = chain.burn("alice", 50_000)
    return [
        chain.make_send("alice", BOB, 1),
        chain.make_burn("alice", 60_000),
        chain.make_cancel("alice", burn),
        chain.make_raise("alice", burn, 600),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_nobody_signs_for_another_account(kind: int) -> None:
    chain = funded()
    record = records(chain)[kind]
    assert chain.refusal(replace(record, signature=sign(make_secret("mallory"), record.digest))) == "BAD_SIGNATURE"
    chain.add(record)


@pytest.mark.parametrize("kind", range(4))
def test_every_record_of_an_account_carries_its_nonce(kind: int) -> None:
    chain = funded()
    record = records(chain)[kind]
    assert chain.refusal(resigned(replace(record, nonce=record.nonce - 1))) in {"WRONG_NONCE", "ALREADY_RECORDED"}
    assert chain.refusal(resigned(replace(record, nonce=record.nonce + 1))) == "WRONG_NONCE"


# ------------------------------------------------------------------ burns


def test_a_burn_takes_payout_and_fee_from_the_account() -> None:
    chain = funded()
    record = chain.make_burn("alice", 100_000)
    chain.add(record)
    assert record.fee == 100 + 2_250
    assert chain.ledger.get_account(ALICE).balance == 995_250 - 102_350
    assert chain.ledger.open_burns == 102_350
    entry = chain.ledger.burns[record.burn_id]
    assert (entry.status, entry.fee, entry.recorded) == (BurnStatus.OPEN, 2_350, chain.ledger.height)


@pytest.mark.parametrize(
    ("payout", "is_taken"),
    [(9_999, False), (10_000, True), (REGTEST.max_payout, True), (REGTEST.max_payout + 1, False)],
)
def test_a_payout_is_from_10_000_sat_to_the_largest(payout: int, is_taken: bool) -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", REGTEST.max_deposit, 1)
    chain.fund("alice", REGTEST.max_deposit, 2)
    record = chain.make_burn("alice", payout)
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) == "AMOUNT"


@pytest.mark.parametrize(("short", "is_taken"), [(0, True), (1, False), (-1, True)])
def test_the_fee_is_at_least_the_price(short: int, is_taken: bool) -> None:
    chain = funded()
    price = compute_fee_out(REGTEST, Sats(100_000), FeeRate(10_000))
    record = chain.make_burn("alice", 100_000, fee=price - short)
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) == "FEE_TOO_LOW"


def test_the_basis_points_of_the_price_are_rounded_up() -> None:
    assert compute_fee_out(REGTEST, Sats(10_000), FeeRate(10_000)) == 10 + 2_250
    assert compute_fee_out(REGTEST, Sats(10_001), FeeRate(10_000)) == 11 + 2_250


def test_a_burn_needs_payout_and_fee_to_the_satoshi() -> None:
    chain = funded()
    fee = 995_250 - 900_000
    assert chain.refusal(chain.make_burn("alice", 900_000, fee=fee + 1)) == "INSUFFICIENT_BALANCE"
    chain.add(chain.make_burn("alice", 900_000, fee=fee))
    assert chain.ledger.get_account(ALICE).balance == 0


HASH20, HASH32 = bytes(range(20)), bytes(range(32))


@pytest.mark.parametrize(
    "script",
    [
        b"\x76\xa9\x14" + HASH20 + b"\x88\xac",
        b"\xa9\x14" + HASH20 + b"\x87",
        b"\x00\x14" + HASH20,
        b"\x00\x20" + HASH32,
        b"\x51\x20" + make_xonly("taproot"),
    ],
    ids=["p2pkh", "p2sh", "p2wpkh", "p2wsh", "p2tr"],
)
def test_takes_every_standard_destination(script: bytes) -> None:
    chain = funded()
    chain.add(chain.make_burn("alice", 10_000, script=Script(script)))


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"\x6a\x04KAON",
        b"\x51\x02\x4e\x73",
        b"\x00\x14" + HASH20 + b"\x00",
        b"\x00\x20" + HASH20,
        b"\x51\x20" + b"\xff" * 32,
        b"\x52\x20" + make_xonly("taproot"),
        b"\x21" + b"\x02" + HASH32 + b"\xac",
        b"\x76\xa9\x14" + HASH20 + b"\x88\xad",
    ],
    ids=["empty", "op_return", "anchor", "long", "short", "off curve", "witness v2", "p2pk", "not p2pkh"],
)
def test_refuses_what_is_no_standard_destination(script: bytes) -> None:
    chain = funded()
    assert chain.refusal(chain.make_burn("alice", 10_000, script=Script(script))) == "DESTINATION"


def test_refuses_the_bridge_s_own_vault_and_invoice_addresses() -> None:
    chain = funded()
    ledger = chain.ledger
    entry = ledger.epochs[EpochNumber(0)]
    for script in derive_vault_scripts(REGTEST, entry):
        assert chain.refusal(chain.make_burn("alice", 10_000, script=script)) == "OWN_DESTINATION"
    assert len(ledger.own_scripts) == 3
    for own in ledger.own_scripts:
        assert chain.refusal(chain.make_burn("alice", 10_000, script=own)) == "OWN_DESTINATION"


# ------------------------------------------------------------------ cancels and raises


def test_a_cancel_gives_back_payout_fee_and_raises() -> None:
    chain = funded()
    burn = chain.burn("alice", 100_000)
    chain.add(chain.make_raise("alice", burn, 777))
    assert chain.ledger.open_burns == 102_350 + 777
    chain.add(chain.make_cancel("alice", burn))
    assert chain.ledger.get_account(ALICE).balance == 995_250
    assert chain.ledger.open_burns == 0
    assert chain.ledger.burns[burn].status is BurnStatus.CANCELLED


def test_refuses_a_cancel_while_a_standing_intent_pays_the_burn() -> None:
    chain = funded()
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    intent = chain.record(chain.make_payout([outpoint], [burn]))
    assert chain.refusal(chain.make_cancel("alice", burn)) == "BURN_BUSY"
    chain.add(chain.make_withdrawal(intent))
    chain.add(chain.make_cancel("alice", burn))


def test_a_replaced_intent_still_holds_the_burn() -> None:
    chain = funded()
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    older = chain.record(chain.make_payout([outpoint], [burn]))
    newer = chain.record(chain.make_payout([outpoint], [burn], fee=3_000, replaces=(older,)))
    chain.add(chain.make_withdrawal(newer))
    assert chain.refusal(chain.make_cancel("alice", burn)) == "BURN_BUSY"


def make_change(chain: LedgerChain, kind: str, user: str, burn: BurnId) -> Signed:
    return chain.make_cancel(user, burn) if kind == "cancel" else chain.make_raise(user, burn, 600)


@pytest.mark.parametrize("kind", ["cancel", "raise"])
def test_only_its_owner_changes_an_open_burn(kind: str) -> None:
    chain = funded()
    chain.add(chain.make_send("alice", BOB, 1_000))
    burn = chain.burn("alice", 100_000)
    assert chain.refusal(make_change(chain, kind, "bob", burn)) == "UNKNOWN_BURN"
    assert chain.refusal(make_change(chain, kind, "alice", BurnId(bytes(32)))) == "UNKNOWN_BURN"
    chain.add(chain.make_cancel("alice", burn))
    assert chain.refusal(make_change(chain, kind, "alice", burn)) == "BURN_NOT_OPEN"


@pytest.mark.parametrize("kind", ["cancel", "raise"])
def test_a_settled_burn_does_not_change(kind: str) -> None:
    chain = funded()
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    chain.book(chain.record(chain.make_payout([outpoint], [burn])))
    assert chain.refusal(make_change(chain, kind, "alice", burn)) == "BURN_NOT_OPEN"


@pytest.mark.parametrize(
    ("extra", "code"), [(0, "AMOUNT"), (587, "AMOUNT"), (588, ""), (892_900, ""), (892_901, "INSUFFICIENT_BALANCE")]
)
def test_a_raise_adds_from_a_quarter_of_the_limit_to_the_whole_balance(extra: int, code: str) -> None:
    """A quarter of 2,350 sat is 587.5."""
    chain = funded()
    record = chain.make_raise("alice", chain.burn("alice", 100_000), extra)
    if code:
        assert chain.refusal(record) == code
    else:
        chain.add(record)


@pytest.mark.parametrize(("fee", "least"), [(0, 1), (1, 1), (4, 1), (5, 2), (2_350, 588), (2_352, 588), (2_353, 589)])
def test_the_least_raise_is_a_quarter_rounded_up_and_never_nothing(fee: int, least: int) -> None:
    assert compute_least_raise(REGTEST, Sats(fee)) == least


def test_a_later_raise_is_measured_by_the_limit_as_raised_before() -> None:
    """Each raise voids the booking being signed: a user of many burns must not do so a satoshi at a time."""
    chain = funded()
    burn = chain.burn("alice", 100_000)
    chain.add(chain.make_raise("alice", burn, 10_000))
    short = chain.make_raise("alice", burn, 3_087)
    with pytest.raises(Refused, match="below the least of 3088") as refused:
        chain.ledger.check_record(short)
    assert "raise it by 3088 sat or more" in refused.value.remedy
    chain.add(chain.make_raise("alice", burn, 3_088))


def test_a_burn_is_raised_at_most_12_times() -> None:
    chain = funded()
    burn = chain.burn("alice", 100_000)
    for _ in range(REGTEST.bump_max_count):
        chain.add(chain.make_raise("alice", burn, compute_least_raise(REGTEST, chain.ledger.burns[burn].fee)))
    fee = chain.ledger.burns[burn].fee
    assert chain.refusal(chain.make_raise("alice", burn, compute_least_raise(REGTEST, fee))) == "TOO_MANY_RAISES"
    assert fee > 14 * 2_350


def test_two_burns_to_one_address_are_two_payments() -> None:
    chain = funded()
    burns = [chain.burn("alice", 100_000), chain.burn("alice", 100_000)]
    assert burns[0] != burns[1]
    (outpoint,) = chain.ledger.vault
    chain.book(chain.record(chain.make_payout([outpoint], burns)))
    assert all(chain.ledger.burns[burn].status is BurnStatus.SETTLED for burn in burns)
    assert chain.ledger.burns[burns[0]].request.script == destination("alice")


MOVES: dict[str, Callable[[LedgerChain], Signed]] = {
    "transfer": lambda chain: chain.make_send("alice", BOB, 10),
    "pay-in": lambda chain: chain.make_send("alice", RESERVE_ACCOUNT, 10),
    "burn": lambda chain: chain.make_burn("alice", 10_000),
}


@pytest.mark.parametrize("move", list(MOVES))
def test_every_move_keeps_the_money_identity(move: str) -> None:
    chain = funded()
    chain.add(MOVES[move](chain))
    money = chain.ledger.money
    assert money.vault == money.supply + money.open_burns + money.reserve
