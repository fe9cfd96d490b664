"""The child that pays for an emergency: its fee to the satoshi, its limits in pairs, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slashing.package import (
    FeeChild,
    FeeGoal,
    Payable,
    WalletCoin,
    build_child,
    build_child_psbt,
    complete_child,
    compute_child_fee,
)
from smpc.bitcoin.fees import compute_dust_limit, compute_fee, find_nonstandard_reason
from smpc.bitcoin.mempool import MAX_TRUC_CHILD_VBYTES, Rival
from smpc.bitcoin.psbt import parse_psbt
from smpc.bitcoin.script import PAY_TO_ANCHOR
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, parse_transaction
from smpc.errors import CheckFailed, InvalidInput, Refused
from smpc.protocol.emergency import ANCHOR_VALUE
from smpc.types import MAX_MONEY, FeeRate, Outpoint, Sats, Script, Txid, Vbytes

P2WPKH = Script(b"\x00\x14" + bytes(20))
P2TR = Script(b"\x51\x20" + bytes(31) + b"\x01")
P2PKH = Script(b"\x76\xa9\x14" + bytes(20) + b"\x88\xac")
RATE = FeeRate(20_000)
INCREMENT = FeeRate(1_000)
GOAL = FeeGoal(RATE, INCREMENT, MAX_MONEY)
ANCHOR = TxOut(ANCHOR_VALUE, PAY_TO_ANCHOR)
UNSIGNED = Transaction(3, (TxIn(Outpoint(Txid(b"\x01" * 32), 0), 1),), (TxOut(Sats(90_000), P2TR), ANCHOR), 0)
PARENT = Payable(UNSIGNED.with_witnesses([(bytes(64), bytes(64), bytes(32), bytes(109), bytes(97))]), Sats(402))
RIVAL = Rival(Txid(b"\x09" * 32), Sats(2_000), Vbytes(150), Sats(5_000), Vbytes(400), family_count=2, ancestors=0)


def coin(value: int, place: int = 0, *, script: Script = P2TR, confirmations: int = 1) -> WalletCoin:
    outpoint = Outpoint(Txid(b"\x02" * 32), place)
    return WalletCoin(outpoint, TxOut(Sats(value), script), confirmations)


def build(*coins: WalletCoin, goal: FeeGoal = GOAL, change: Script = P2TR) -> FeeChild:
    return build_child(PARENT, coins, change, goal)


def refusal(*coins: WalletCoin, goal: FeeGoal = GOAL) -> str:
    with pytest.raises(Refused) as refused:
        build(*coins, goal=goal)
    return refused.value.code


def sign(child: FeeChild, size: int = 64) -> Transaction:
    others = [(bytes(size),)] * (len(child.transaction.inputs) - 1)
    return child.transaction.with_witnesses([(), *others])


class TestFee:
    def test_child_spends_the_anchor_and_a_coin_and_pays_the_rest_back(self) -> None:
        child = build(coin(100_000))
        anchor, paying = child.transaction.inputs
        assert anchor.outpoint == PARENT.transaction.outpoint(1)
        assert paying.outpoint == coin(100_000).outpoint
        assert child.transaction.version == 3
        assert child.transaction.outputs == (TxOut(Sats(100_240 - child.fee), P2TR),)
        assert find_nonstandard_reason(child.transaction) is None

    def test_parent_and_child_together_pay_the_rate_and_not_a_satoshi_more(self) -> None:
        child = build(coin(100_000))
        both = Vbytes(PARENT.vsize + sign(child).vsize)
        assert child.vsize == sign(child).vsize
        assert PARENT.fee + child.fee == compute_fee(RATE, both)

    @pytest.mark.parametrize("script", [P2TR, P2WPKH])
    def test_planned_size_holds_for_the_largest_signature_of_each_kind_of_coin(self, script: Script) -> None:
        child = build(coin(100_000, script=script))
        witness = (bytes(64),) if script == P2TR else (bytes(72), bytes(33))
        assert child.transaction.with_witnesses([(), witness]).vsize == child.vsize

    def test_child_of_a_parent_that_pays_the_rate_itself_still_pays_it_for_its_own_size(self) -> None:
        rich = replace(PARENT, fee=compute_fee(FeeRate(200_000), PARENT.vsize))
        assert compute_child_fee(rich, Vbytes(150), GOAL) == compute_fee(RATE, Vbytes(150))

    def test_child_outbids_who_holds_the_anchor_by_the_price_of_its_own_relay(self) -> None:
        goal = replace(
            GOAL, rate=FeeRate(1_000), anchor_rival=replace(RIVAL, vsize=Vbytes(900), family_vsize=Vbytes(900))
        )
        assert compute_child_fee(PARENT, Vbytes(150), goal) == 5_000 + 150

    def test_child_outbids_a_small_rivals_rate_where_that_is_more_than_its_fees(self) -> None:
        goal = replace(GOAL, rate=FeeRate(1_000), anchor_rival=RIVAL)
        assert compute_child_fee(PARENT, Vbytes(600), goal) == 2_000 * 600 // 150 + 1

    def test_package_outbids_who_holds_the_emergencys_input_with_its_whole_family(self) -> None:
        goal = replace(
            GOAL, rate=FeeRate(1_000), parent_rival=replace(RIVAL, vsize=Vbytes(900), family_vsize=Vbytes(1_500))
        )
        both = PARENT.vsize + 150
        assert compute_child_fee(PARENT, Vbytes(150), goal) == 5_000 + both - PARENT.fee

    def test_package_that_replaces_pays_a_better_rate_than_its_parent(self) -> None:
        rich = replace(PARENT, fee=Sats(40_200))
        goal = replace(GOAL, rate=FeeRate(1_000), parent_rival=RIVAL)
        assert compute_child_fee(rich, Vbytes(150), goal) == 40_200 * 150 // PARENT.vsize + 1

    @given(rate=st.integers(1_000, 2_000_000), own=st.integers(0, 100_000), value=st.integers(2_000, 10_000_000))
    def test_whatever_is_built_reaches_its_rate_and_conserves_value(self, rate: int, own: int, value: int) -> None:
        parent = replace(PARENT, fee=Sats(own))
        try:
            child = build_child(parent, [coin(value)], P2TR, replace(GOAL, rate=FeeRate(rate)))
        except Refused:
            return
        assert (own + child.fee) * 1000 >= rate * (parent.vsize + child.vsize)
        assert child.fee * 1000 >= rate * child.vsize
        assert sum(out.value for out in child.prevouts) == child.fee + child.transaction.outputs[0].value


class TestCoins:
    def test_smallest_coin_that_suffices_is_spent_and_the_others_kept(self) -> None:
        child = build(coin(500_000, 0), coin(1_000, 1), coin(80_000, 2), coin(60_000, 3))
        assert child.transaction.inputs[1].outpoint.vout == 3
        assert len(child.transaction.inputs) == 2

    def test_coins_too_small_alone_are_spent_together_largest_first(self) -> None:
        child = build(coin(4_000, 0), coin(5_000, 1), coin(3_900, 2))
        assert [txin.outpoint.vout for txin in child.transaction.inputs[1:]] == [1, 0]

    def test_order_of_the_coins_given_changes_nothing(self) -> None:
        coins = [coin(4_000, 0), coin(5_000, 1), coin(4_000, 2)]
        assert build(*coins) == build(*reversed(coins))

    def test_change_at_the_dust_limit_is_paid_back_and_a_satoshi_less_is_refused(self) -> None:
        fee = build(coin(100_000)).fee
        least = compute_dust_limit(P2TR) + fee - ANCHOR_VALUE
        assert build(coin(least)).transaction.outputs[0].value == compute_dust_limit(P2TR)
        assert refusal(coin(least - 1)) == "TOO_LITTLE_COIN"

    def test_a_wallet_without_coins_is_refused(self) -> None:
        assert refusal() == "TOO_LITTLE_COIN"

    def test_fee_at_the_budget_is_paid_and_a_satoshi_above_is_refused(self) -> None:
        fee = build(coin(100_000)).fee
        assert build(coin(100_000), goal=replace(GOAL, budget=fee)).fee == fee
        assert refusal(coin(100_000), goal=replace(GOAL, budget=Sats(fee - 1))) == "CHILD_TOO_DEAR"

    def test_child_is_never_larger_than_nodes_relay(self) -> None:
        each = 1_700
        coins = [coin(each, place) for place in range(40)]
        largest = next(count for count in range(1, 40) if _compute_size(count + 1) > MAX_TRUC_CHILD_VBYTES)
        enough = Sats(each * largest + ANCHOR_VALUE - compute_dust_limit(P2TR))
        rate = FeeRate((enough + PARENT.fee) * 1000 // (PARENT.vsize + _compute_size(largest)))
        child = build(*coins, goal=replace(GOAL, rate=rate))
        assert len(child.transaction.inputs) == largest + 1
        assert child.vsize <= MAX_TRUC_CHILD_VBYTES < _compute_size(largest + 1)
        assert refusal(*coins, goal=replace(GOAL, rate=FeeRate(rate + 200))) == "CHILD_TOO_LARGE"

    def test_unconfirmed_coin_is_refused_and_one_confirmation_is_enough(self) -> None:
        with pytest.raises(InvalidInput, match="unconfirmed"):
            build(coin(100_000, confirmations=0))
        assert build(coin(100_000, confirmations=1)).fee > 0

    def test_coin_of_unknown_size_and_coin_named_twice_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="neither P2WPKH nor P2TR"):
            build(coin(100_000, script=P2PKH))
        with pytest.raises(InvalidInput, match="twice"):
            build(coin(100_000), coin(100_000))


class TestParent:
    @pytest.mark.parametrize(
        "changed",
        [
            replace(UNSIGNED, version=2),
            replace(UNSIGNED, outputs=UNSIGNED.outputs[:1]),
            replace(UNSIGNED, outputs=UNSIGNED.outputs[::-1]),
            replace(UNSIGNED, outputs=(*UNSIGNED.outputs, ANCHOR)),
            replace(UNSIGNED, outputs=(UNSIGNED.outputs[0], replace(ANCHOR, value=Sats(239)))),
            replace(UNSIGNED, outputs=(UNSIGNED.outputs[0], replace(ANCHOR, script=P2TR))),
        ],
    )
    def test_parent_of_another_shape_is_refused(self, changed: Transaction) -> None:
        with pytest.raises(InvalidInput, match="anchor"):
            build_child(Payable(changed, Sats(402)), [coin(100_000)], P2TR, GOAL)


class TestSigning:
    @pytest.mark.parametrize("script", [P2TR, P2WPKH])
    def test_psbt_names_every_output_spent_and_survives_being_read(self, script: Script) -> None:
        child = build(coin(100_000, script=script))
        psbt = parse_psbt(build_child_psbt(child).to_base64())
        assert psbt.transaction == child.transaction
        assert psbt.prevouts == child.prevouts == (ANCHOR, TxOut(Sats(100_000), script))

    def test_signed_child_is_taken_as_it_was_planned(self) -> None:
        child = build(coin(100_000))
        assert complete_child(child, parse_transaction(sign(child).to_bytes())) == sign(child)

    def test_other_unsigned_and_oversized_answers_of_a_wallet_are_not_taken(self) -> None:
        child = build(coin(100_000))
        other = replace(sign(child), outputs=(TxOut(Sats(1_000), P2TR),))
        stuffed = child.transaction.with_witnesses([(b"\x01",), (bytes(64),)])
        for answer in (other, child.transaction, stuffed, sign(child, size=80)):
            with pytest.raises(CheckFailed):
                complete_child(child, answer)


def _compute_size(count: int) -> Vbytes:
    inputs = tuple(TxIn(Outpoint(Txid(bytes(32)), place), 0) for place in range(count + 1))
    draft = Transaction(3, inputs, (TxOut(Sats(0), P2TR),), 0)
    return draft.with_witnesses([(), *[(bytes(64),)] * count]).vsize
