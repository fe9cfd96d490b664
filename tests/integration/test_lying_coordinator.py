"""A coordinator that lies under its own real key, before real pods: each lie is refused by every pod, by its rule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from hashlib import sha256

import pytest
import pytest_asyncio

from coordinator.attendance import Answered, Declined, Heard, Seat
from coordinator.pods import Question
from pegbridge.v1 import participant_pb2, participant_pb2_grpc
from pegin.invoice import build_invoice_tree
from pegin.model import BuiltTransaction
from smpc.curve import sign_schnorr
from smpc.node.ports import BroadcastRefused
from smpc.params import REGTEST
from smpc.participant.reviewer import MAX_SLOT_AGE
from smpc.protocol.intents import IntentInput
from smpc.protocol.pod_messages import CommitRequest, CompleteReply, EndorseRequest, Reply, SignReply, SignRequest
from smpc.types import BurnId, FeeRate, KaonHeight, Role, Sats, SessionId, Signature
from tests.support.chain import destination
from tests.support.groups import make_account, make_secret
from tests.support.liar import Liar, assert_all_name, assert_all_refuse, describe
from tests.support.lies import FOREIGN, HEADER_LIES, PAYOUT, PAYOUT_LIES, TRANSACTION_LIES, TRANSFER_LIES
from tests.support.pod_flows import RATE
from tests.support.pod_net import open_pod_net

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@dataclass(frozen=True, slots=True)
class Stage:
    """Money in the vault, an open burn, and a mature deposit that nobody has proposed yet."""

    liar: Liar
    first: BuiltTransaction
    """The honest transfer that filled the vault."""
    burn: BurnId
    deposit: IntentInput

    def payout(self, rate: FeeRate = RATE) -> BuiltTransaction:
        """Return the honest payout that lies depart from; it is never recorded."""
        return self.liar.payout(self.liar.find_free_coins()[:1], [self.burn], rate=rate)

    def transfer(self) -> BuiltTransaction:
        """Return the honest transfer that lies depart from; it is never recorded."""
        return self.liar.transfer(self.deposit)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Bring a network up and carry two honest batches of deposits through it."""
    async with open_pod_net(tmp_path_factory.mktemp("liar") / "net") as net:
        liar = Liar(net)
        deposits = [await liar.deposit(sats, blocks=0) for sats in (10_000_000, 20_000_000, 40_000_000)]
        await net.chain.mine(3)
        first = liar.transfer(*deposits[:2])
        await liar.carry_out(first)
        await liar.carry_out(liar.transfer(deposits[2]))
        burn = await liar.burn(PAYOUT, destination("bob"))
        yield Stage(liar, first, burn, await liar.deposit(5_000_000))


def ask_honestly(stage: Stage, seat: Seat) -> EndorseRequest:
    """Return the honest request that session lies depart from."""
    built = stage.payout()
    return stage.liar.endorsement(seat, built.intent, built.transaction.to_bytes())


# ------------------------------------------------------------------------------ honest ways


async def test_an_honest_transfer_is_signed_by_both_groups_mined_and_credited(stage: Stage) -> None:
    net, inputs = stage.liar.net, stage.first.intent.inputs
    found = await net.node.fetch_transaction(stage.first.intent.txid)
    assert found is not None
    assert found.confirmations >= REGTEST.credit_confirmations
    assert {item.outpoint for item in inputs} <= set(net.ledger.credited)


async def test_an_honest_payout_is_mined_and_settles_its_burn(stage: Stage) -> None:
    liar, net = stage.liar, stage.liar.net
    burn = await liar.burn(PAYOUT, destination("carol"))
    paid = liar.payout(liar.find_free_coins()[-1:], [burn])
    await liar.carry_out(paid)
    ledger = net.ledger
    assert ledger.burns[burn].settled_by == paid.intent.txid
    assert ledger.vault_total == ledger.supply + ledger.open_burns + ledger.reserve


# ------------------------------------------------------------------------------ what is proposed


@pytest.mark.parametrize("lie", TRANSACTION_LIES)
async def test_every_pod_endorses_only_the_transaction_it_rebuilds(stage: Stage, lie: str) -> None:
    told, built = TRANSACTION_LIES[lie], stage.payout()
    raw = told.tell(built.transaction).to_bytes()
    assert_all_refuse(await stage.liar.ask_endorsements(built.intent, raw), told.rule, told.reason)


@pytest.mark.parametrize("lie", PAYOUT_LIES)
async def test_every_pod_refuses_to_endorse_a_payout_that(stage: Stage, lie: str) -> None:
    told, built = PAYOUT_LIES[lie], stage.payout()
    answers = await stage.liar.ask_endorsements(told.tell(built.intent), built.transaction.to_bytes())
    assert_all_refuse(answers, told.rule, told.reason)


@pytest.mark.parametrize("lie", TRANSFER_LIES)
async def test_every_pod_refuses_to_endorse_a_transfer_that(stage: Stage, lie: str) -> None:
    told, built = TRANSFER_LIES[lie], stage.transfer()
    answers = await stage.liar.ask_endorsements(told.tell(built.intent), built.transaction.to_bytes())
    assert_all_refuse(answers, told.rule, told.reason)


@pytest.mark.parametrize("rate", [10_001, 300_001])
async def test_every_pod_refuses_a_fee_rate_above_what_its_own_node_says(stage: Stage, rate: int) -> None:
    built = stage.payout(FeeRate(rate))
    answers = await stage.liar.ask_endorsements(built.intent, built.transaction.to_bytes())
    assert_all_refuse(answers, "V18", "FEE_CAP")


async def test_every_pod_refuses_an_intent_that_names_burns_and_spends_nothing_real(stage: Stage) -> None:
    honest, coin = stage.payout(), stage.payout().intent.inputs[0]
    for spent in (replace(coin, outpoint=FOREIGN), stage.deposit):
        intent = replace(honest.intent, inputs=(spent,))
        answers = await stage.liar.ask_endorsements(intent, honest.transaction.to_bytes())
        assert_all_refuse(answers, "V14", "INPUT_NOT_BOOKED")


async def test_every_pod_refuses_to_move_a_deposit_again(stage: Stage) -> None:
    again = stage.first
    answers = await stage.liar.ask_endorsements(again.intent, again.transaction.to_bytes())
    assert_all_refuse(answers, "V14", "INPUT_MISSING")
    rules = {rule for heard in answers.values() if isinstance(heard, Declined) for rule in heard.refusal.rules}
    assert "V37" in rules


async def test_every_pod_refuses_a_deposit_one_block_too_young(stage: Stage) -> None:
    liar = stage.liar
    built = liar.transfer(await liar.deposit(1_000_000, blocks=REGTEST.confirmations - 1))
    answers = await liar.ask_endorsements(built.intent, built.transaction.to_bytes())
    assert_all_refuse(answers, "V32", "NOT_DEEP_ENOUGH")


async def test_every_pod_refuses_a_batch_with_a_deposit_one_sat_below_its_bound(stage: Stage) -> None:
    liar = stage.liar
    terms = await liar.invoice()
    value = Sats(terms.min_amount - 1)
    outpoint = await liar.pay(build_invoice_tree(liar.net.keys, terms).script, value)
    await liar.net.chain.mine(REGTEST.confirmations)
    built = liar.transfer(stage.deposit, IntentInput(outpoint, value, terms.index))
    answers = await liar.ask_endorsements(built.intent, built.transaction.to_bytes())
    assert_all_refuse(answers, "V33", "OUT_OF_BOUNDS")


# ------------------------------------------------------------------------------ sessions and envelopes


@pytest.mark.parametrize("lie", HEADER_LIES)
async def test_every_pod_refuses_a_session_of(stage: Stage, lie: str) -> None:
    told = HEADER_LIES[lie]

    def build(seat: Seat) -> EndorseRequest:
        honest = ask_honestly(stage, seat)
        return replace(honest, header=told.tell(honest.header))

    assert_all_refuse(await stage.liar.ask_every(build), told.rule, told.reason)


async def test_every_pod_refuses_an_envelope_that_names_a_foreign_session(stage: Stage) -> None:
    session = SessionId(sha256(b"another session").digest())

    def build(seat: Seat) -> Question:
        return stage.liar.seal(ask_honestly(stage, seat), session_id=session)

    assert_all_refuse(await stage.liar.ask_every(build), "V04", "SESSION_ID_MISMATCH")


async def test_every_pod_refuses_an_envelope_of_a_key_that_leads_nothing(stage: Stage) -> None:
    def build(seat: Seat) -> Question:
        return stage.liar.seal(ask_honestly(stage, seat), secret=make_secret("nobody"))

    assert_all_refuse(await stage.liar.ask_every(build), "V03", "NOT_LEADER")


async def test_every_pod_refuses_an_envelope_that_was_sealed_for_another_call(stage: Stage) -> None:
    def build(seat: Seat) -> Question:
        return stage.liar.seal(ask_honestly(stage, seat), method="Commit/request")

    assert_all_refuse(await stage.liar.ask_every(build), "V03", "NOT_LEADER")


# ------------------------------------------------------------------------------ record, wait, sign


async def test_no_pod_commits_to_an_intent_that_is_not_recorded(stage: Stage) -> None:
    built = stage.payout()
    answers = await stage.liar.ask_every(lambda seat: stage.liar.commitment(seat, built))
    assert_all_refuse({name: answers[name] for name in validator_names(stage)}, "V21", "INTENT_NOT_FINAL")
    # A witness looks at the validators' signatures first: there are none.
    assert_all_refuse({name: answers[name] for name in answers if name not in validator_names(stage)}, "V11")


async def test_no_pod_commits_in_a_slot_long_gone(stage: Stage) -> None:
    liar, built = stage.liar, stage.payout()

    def build(seat: Seat) -> CommitRequest:
        request = liar.commitment(seat, built)
        return replace(request, header=replace(request.header, slot=KaonHeight(request.header.slot - MAX_SLOT_AGE - 9)))

    assert_all_refuse(await liar.ask_every(build), "V08", "DEADLINE_TOO_CLOSE")


async def test_no_pod_commits_before_the_window_is_over(stage: Stage) -> None:
    liar = stage.liar
    for _ in range(WINDOW_TRIES):
        built = liar.transfer(await liar.deposit(2_000_000))
        await liar.record(built)
        answers = await ask_within_window(liar, built)
        await liar.pass_window(built)
        await liar.send(built, *await liar.sign_both(built))
        await liar.book(built)
        if answers:
            assert_all_refuse(answers, "V21", "WINDOW_NOT_OVER")
            return
    pytest.fail("no window stayed open until every pod had seen its intent")


WINDOW_TRIES = 5
"""A window is half a second here: on a busy machine it may be over before the last pod has the block."""


async def ask_within_window(liar: Liar, built: BuiltTransaction) -> dict[str, Heard[Reply]]:
    """Ask V to commit while no block is made and every pod is inside the window; nothing when it closed before."""
    net, recorded = liar.net, liar.net.ledger.intents[built.intent.intent_id].recorded

    def build(seat: Seat) -> CommitRequest:
        request = liar.commitment(seat, built)
        return replace(request, header=replace(request.header, slot=recorded))

    while True:
        with net.frozen("consensus"):
            heights = [(await net.fetch_status(seat.identity)).kaon_height for seat in net.seats(Role.VALIDATOR)]
            if max(heights) >= recorded + REGTEST.challenge_blocks:
                return {}
            if min(heights) >= recorded:
                return await liar.ask_every(build, [Role.VALIDATOR])
        await asyncio.sleep(0.02)  # the pods' streams catch up; the loop looks again


async def test_no_witness_signs_on_validator_signatures_of_anything_but_its_own_digests(stage: Stage) -> None:
    liar = stage.liar
    deposits = [await liar.deposit(sats, blocks=0) for sats in (1_000_000, 2_000_000)]
    await liar.net.chain.mine(REGTEST.confirmations)
    built = liar.transfer(*deposits)
    await liar.record(built)
    await liar.pass_window(built)
    good = await liar.sign(Role.VALIDATOR, built)
    own = Signature(sign_schnorr(make_secret("attacker"), built.compute_digests()[0], bytes(32)))
    for lie in ((), good[:1], good[::-1], (own, good[1]), (good[0], Signature(bytes(64)))):
        answers = await liar.ask_every(lambda seat, lie=lie: liar.commitment(seat, built, lie), [Role.WITNESS])  # type: ignore[misc]
        assert_all_refuse(answers, "V11", "SIGHASH_MISMATCH")
    await refuse_signatures_with_a_sighash_byte(liar, built, good)
    await liar.send(built, good, await liar.sign(Role.WITNESS, built, good))
    await liar.book(built)


async def refuse_signatures_with_a_sighash_byte(
    liar: Liar, built: BuiltTransaction, good: tuple[Signature, ...]
) -> None:
    """65 bytes, as SIGHASH_SINGLE | ANYONECANPAY has them, are no signature anywhere in the protocol (case B8)."""
    longer = tuple(Signature(signature + b"\x83") for signature in good)
    answers = await liar.ask_every(lambda seat: liar.commitment(seat, built, longer), [Role.WITNESS])
    codes = {getattr(heard, "code", describe(heard)) for heard in answers.values()}
    assert codes == {"INVALID_ARGUMENT"}


async def test_a_replayed_question_gets_the_same_answer_and_another_one_none(stage: Stage) -> None:
    liar, pods = stage.liar, stage.liar.net.pods
    built = liar.transfer(await liar.deposit(3_000_000))
    await liar.record(built)
    await liar.pass_window(built)
    opened = await liar.open_session(liar.net.seats(Role.VALIDATOR)[:3], built)
    for each in opened:
        again = await pods.hear(each.seat, each.commit, seconds=10)
        assert isinstance(again, Answered)
        assert again.reply == each.reply
    request = liar.round_two(opened)
    question = pods.seal(request)
    shares = [await pods.hear(each.seat, question, seconds=10) for each in opened]
    replayed = [await pods.hear(each.seat, question, seconds=10) for each in opened]
    assert [read_share(heard) for heard in shares] == [read_share(heard) for heard in replayed]
    other = liar.round_two([replace(opened[0], reply=opened[1].reply), *opened[1:]])
    wrong = replace(request, aggregate_nonces=other.aggregate_nonces)
    for each in opened:
        assert_all_refuse({"pod": await liar.ask(each.seat, wrong)}, "V09", "NONCE_SPENT")
        assert_all_refuse({"pod": await pods.hear(each.seat, each.commit, seconds=10)}, "V09", "SESSION_SEEN")
    await liar.send(built, *await liar.sign_both(built))
    await liar.book(built)


SIGN_LIES: dict[str, Callable[[SignRequest], SignRequest]] = {
    "signers without the one asked": lambda it: replace(it, signers=it.signers[1:]),
    "fewer signers than the threshold": lambda it: replace(it, signers=it.signers[:1]),
    "a signer twice": lambda it: replace(it, signers=(*it.signers, it.signers[-1])),
    "a signer that does not exist": lambda it: replace(it, signers=(*it.signers[:2], 99)),
    "no nonces": lambda it: replace(it, aggregate_nonces=b""),
    "a nonce too few": lambda it: replace(it, aggregate_nonces=it.aggregate_nonces[:130]),
    "a nonce too many": lambda it: replace(it, aggregate_nonces=it.aggregate_nonces + it.aggregate_nonces[:130]),
    "nonces that are no points": lambda it: replace(it, aggregate_nonces=b"\x05" * len(it.aggregate_nonces)),
    "half a nonce": lambda it: replace(it, aggregate_nonces=it.aggregate_nonces[:-65]),
}


async def test_a_broken_second_round_gets_no_share_and_spends_no_nonce_twice(stage: Stage) -> None:
    liar = stage.liar
    deposits = [await liar.deposit(sats, blocks=0) for sats in (1_000_000, 1_500_000)]
    await liar.net.chain.mine(REGTEST.confirmations)
    built = liar.transfer(*deposits)
    await liar.record(built)
    await liar.pass_window(built)
    seats = liar.net.seats(Role.VALIDATOR)[:3]
    for lie, tell in SIGN_LIES.items():
        honest = liar.round_two(await liar.open_session(seats, built))
        heard = await liar.ask(seats[0], tell(honest))
        assert isinstance(heard, Declined) or getattr(heard, "code", "") == "INVALID_ARGUMENT", f"{lie}: {heard}"
        after = await liar.ask(seats[0], honest)
        # Either the nonces were not touched, and the honest request is answered; or they are gone for good.
        assert isinstance(after, Answered) or describe(after).startswith("refused V09"), f"{lie}: {describe(after)}"
    await liar.send(built, *await liar.sign_both(built))
    await liar.book(built)


async def test_an_operator_can_ask_every_pod_why_it_refused(stage: Stage) -> None:
    liar, built = stage.liar, stage.payout()
    lie = PAYOUT_LIES["pays the attacker"].tell(built.intent)
    await liar.ask_endorsements(lie, built.transaction.to_bytes())
    request = participant_pb2.ExplainRequest(subject=lie.intent_id)
    for seat in liar.net.seats():
        client = liar.net.transport.channel(seat.identity).client(participant_pb2_grpc.ParticipantServiceStub)
        checks = (await client.call(lambda stub: stub.Explain, request, seconds=5)).checks
        failed = {(check.rule, check.reason) for check in checks if not check.is_ok}
        assert failed == {("V10", "NOT_REBUILT"), ("V42", "DESTINATION")}
        assert {check.stage for check in checks} == {"endorse"}
        assert (await liar.net.fetch_status(seat.identity)).refusals > 0


async def test_a_burn_that_is_being_paid_is_not_paid_again_from_another_output(stage: Stage) -> None:
    liar = stage.liar
    burn = await liar.burn(PAYOUT, destination("dora"))
    first, second = liar.find_free_coins()[:2]
    paying = liar.payout([first], [burn])
    await liar.record(paying)
    again = liar.payout([second], [burn])
    answers = await liar.ask_endorsements(again.intent, again.transaction.to_bytes())
    assert_all_refuse(answers, "V20", "DOUBLE_PAY")
    await liar.pass_window(paying)
    await liar.send(paying, *await liar.sign_both(paying))
    await liar.book(paying)
    settled = liar.payout([liar.find_free_coins()[0]], [burn])
    answers = await liar.ask_endorsements(settled.intent, settled.transaction.to_bytes())
    assert_all_name(answers, "V40")


async def test_a_withheld_transaction_cannot_pay_beside_its_replacement(stage: Stage) -> None:
    liar, net = stage.liar, stage.liar.net
    burn = await liar.burn(PAYOUT, destination("erin"))
    coins = liar.find_free_coins()[:2]
    withheld = liar.payout(coins[:1], [burn])
    await liar.record(withheld)
    await liar.pass_window(withheld)
    signatures = await liar.sign_both(withheld)
    elsewhere = liar.payout(coins[1:], [burn])
    answers = await liar.ask_endorsements(elsewhere.intent, elsewhere.transaction.to_bytes())
    assert_all_name(answers, "V20")
    early = liar.payout(coins[:1], [burn], rate=FeeRate(7_000), replaces=(withheld.intent.intent_id,))
    answers = await liar.ask_endorsements(early.intent, early.transaction.to_bytes())
    assert_all_refuse(answers, "V18", "BUMP_TOO_EARLY")
    await net.chain.mine(REGTEST.bump_after)
    await liar.carry_out(early)
    with pytest.raises(BroadcastRefused):
        await net.node.broadcast(withheld.complete(*signatures).to_bytes())
    answers = await liar.ask_every(lambda seat: liar.commitment(seat, withheld), [Role.VALIDATOR])
    assert_all_name(answers, "V21")
    assert net.ledger.burns[burn].settled_by == early.intent.txid


async def test_every_pod_completes_and_broadcasts_what_the_coordinator_withholds(stage: Stage) -> None:
    liar, net = stage.liar, stage.liar.net
    built = liar.transfer(await liar.deposit(4_000_000))
    await liar.record(built)
    await liar.pass_window(built)
    validators, witnesses = await liar.sign_both(built)
    swapped = await liar.ask_every(lambda seat: liar.completion(seat, built, witnesses, validators))
    assert_all_refuse(swapped, "V11", "SIGHASH_MISMATCH")
    answers = await liar.ask_every(lambda seat: liar.completion(seat, built, validators, witnesses))
    assert {name: read_txid(heard) for name, heard in answers.items()} == dict.fromkeys(answers, built.intent.txid)
    await net.chain.mine(REGTEST.confirmations)
    await liar.book(built)


async def test_no_pod_signs_a_booking_that_credits_one_sat_more(stage: Stage) -> None:
    liar, net = stage.liar, stage.liar.net
    built = liar.transfer(await liar.deposit(6_000_000))
    await liar.record(built)
    honest = net.ledger.compute_booking(built.intent.intent_id)
    await liar.refuse_bookings(honest, "NOT_MINED")
    await liar.pass_window(built)
    await liar.send(built, *await liar.sign_both(built))
    credit = replace(honest.credits[0], value=Sats(honest.credits[0].value + 1))
    await liar.refuse_bookings(replace(honest, credits=(credit,)), "BOOKING_MISMATCH")
    stolen = replace(honest.credits[0], recipient=make_account("mallory")[1])
    await liar.refuse_bookings(replace(honest, credits=(stolen,)), "BOOKING_MISMATCH")
    await liar.book(built)
    await liar.refuse_bookings(honest, "ALREADY_BOOKED")


def validator_names(stage: Stage) -> set[str]:
    """Return the names of V's pods."""
    return {stage.liar.net.name_of(seat.identity) for seat in stage.liar.net.seats(Role.VALIDATOR)}


def read_share(heard: Heard[Reply]) -> bytes:
    """Return the shares a pod gave."""
    assert isinstance(heard, Answered), describe(heard)
    assert isinstance(heard.reply, SignReply)
    return heard.reply.shares


def read_txid(heard: Heard[Reply]) -> bytes:
    """Return the transaction a pod completed."""
    assert isinstance(heard, Answered), describe(heard)
    assert isinstance(heard.reply, CompleteReply)
    return heard.reply.txid
