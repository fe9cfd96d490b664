"""A pod as a process: killed, stopped, robbed of its log, called by whoever should not, and fed what is no message."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from coordinator.attendance import Answered, Declined, Lost, Seat
from pegbridge.v1 import envelope_pb2, participant_pb2, participant_pb2_grpc, signing_pb2, signing_pb2_grpc
from pegin.model import BuiltTransaction
from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import BridgeError, ExitCode, Refused
from smpc.host.grpc_channel import ChannelLimits, RpcChannel
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles, init_ca, issue_certificate
from smpc.protocol.pod_messages import (
    DKG_SUITE,
    AbortRequest,
    BookingSubject,
    CommitRequest,
    DeadSubject,
    DkgFinalizeRequest,
    DkgInvestigateRequest,
    DkgRecoverRequest,
    DkgStep1Request,
    DkgStep2Request,
    EndorseRequest,
    ReadySubject,
    Request,
    SignRequest,
    WithdrawalSubject,
)
from smpc.types import Attempt, FeeRate, IdentityKey, Network, Purpose, Role, Signature
from tests.support.fuzz import change_field, damage_bytes
from tests.support.liar import Liar, assert_all_refuse, describe
from tests.support.pod_net import EPOCH, open_pod_net

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

MEGABYTE = 1_000_000
RSS_LIMIT = 100 * MEGABYTE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def liar(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Liar]:
    """Bring a network up; the coordinator's key is in our hand."""
    async with open_pod_net(tmp_path_factory.mktemp("process") / "net") as net:
        yield Liar(net)


@pytest.fixture
def seat(liar: Liar) -> Seat:
    """Give the first validator's seat."""
    return liar.net.seats(Role.VALIDATOR)[0]


def read_rss(liar: Liar, seat: Seat) -> int:
    """Return a pod's resident bytes."""
    text = Path(f"/proc/{liar.net.child(seat.identity).pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


def run_participant(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `peg-participant` to its end."""
    program = Path(sys.executable).parent / "peg-participant"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


async def record_transfer(liar: Liar, sats: int) -> BuiltTransaction:
    """Have a transfer recorded; its window is over."""
    built = liar.transfer(await liar.deposit(sats))
    await liar.record(built)
    await liar.pass_window(built)
    return built


# ------------------------------------------------------------------------------ at rest


async def test_status_shows_what_a_running_pod_holds(liar: Liar, seat: Seat) -> None:
    answer = await asyncio.to_thread(run_participant, "status", "--config", liar.net.files(seat.identity).config)
    told = json.loads(answer.stdout)
    assert answer.returncode == ExitCode.DONE
    assert told["schema"] == "peg-participant.status/1"
    assert told["data"]["identity_key"] == seat.identity.hex()
    assert told["data"]["shares"] == [{"epoch": 0, "role": "validator", "position": 0, "is_ready": True}]
    assert told["data"]["bitcoin_ready"]
    assert told["data"]["not_ready_reason"] == ""


async def test_a_pod_at_rest_is_below_100_mb(liar: Liar) -> None:
    sizes = {liar.net.name_of(seat.identity): read_rss(liar, seat) / MEGABYTE for seat in liar.net.seats(*Role)}
    assert max(sizes.values()) < RSS_LIMIT / MEGABYTE, sizes


async def test_a_second_process_on_the_same_data_is_turned_away(liar: Liar, seat: Seat) -> None:
    answer = await asyncio.to_thread(run_participant, "run", "--config", liar.net.files(seat.identity).config)
    assert answer.returncode == ExitCode.REFUSED
    assert "belongs to process" in json.loads(answer.stdout)["error"]["message"]


# ------------------------------------------------------------------------------ killed and stopped


async def test_a_pod_killed_between_commit_and_sign_signs_in_a_new_session_only(liar: Liar, seat: Seat) -> None:
    built = await record_transfer(liar, 1_000_000)
    opened = await liar.open_session(liar.net.seats(Role.VALIDATOR)[:3], built)
    await liar.net.child(seat.identity).stop(kill=True)
    await liar.net.start_pods([seat.identity])
    assert_all_refuse({"pod": await liar.ask(seat, liar.round_two(opened))}, "V09", "SESSION_BURNT")
    await liar.send(built, *await liar.sign_both(built))
    await liar.book(built)


async def test_a_pod_killed_after_its_share_gives_the_same_share_again(liar: Liar, seat: Seat) -> None:
    built = await record_transfer(liar, 1_100_000)
    opened = await liar.open_session(liar.net.seats(Role.VALIDATOR)[:3], built)
    request = liar.round_two(opened)
    shares = await liar.ask_share(seat, request)
    await liar.net.child(seat.identity).stop(kill=True)
    await liar.net.start_pods([seat.identity])
    assert await liar.ask_share(seat, request) == shares
    wrong = replace(request, signers=request.signers[:2])
    assert_all_refuse({"pod": await liar.ask(seat, wrong)}, "V09", "NONCE_SPENT")
    await liar.send(built, *await liar.sign_both(built))
    await liar.book(built)


async def test_a_pod_told_to_end_in_the_middle_of_a_round_answers_first(liar: Liar, seat: Seat) -> None:
    built = await record_transfer(liar, 1_200_000)
    child = liar.net.child(seat.identity)
    with liar.net.frozen("bitcoind"):
        asking = asyncio.create_task(liar.ask(seat, liar.commitment(seat, built)))
        await asyncio.sleep(0.5)  # the pod waits for its own node now, which is frozen: there is nothing to await
        stopping = asyncio.create_task(child.stop())
        await asyncio.sleep(0.5)
        assert child.pid is not None
    assert isinstance(await asking, Answered)
    await stopping
    assert child.exit_code == ExitCode.DONE
    await liar.net.start_pods([seat.identity])
    await liar.send(built, *await liar.sign_both(built))
    await liar.book(built)


async def test_a_pod_waits_for_its_consensus_node_and_can_be_told_to_end_meanwhile(liar: Liar, seat: Seat) -> None:
    child = liar.net.child(seat.identity)
    await child.stop()
    with liar.net.frozen("consensus"):
        child.start()
        await asyncio.sleep(3)
        assert child.pid is not None, child.read_tail()
        await child.stop()
        assert child.exit_code == ExitCode.DONE, child.read_tail()
    await liar.net.start_pods([seat.identity])


# ------------------------------------------------------------------------------ the signing log


async def test_a_pod_whose_log_vanished_starts_only_by_its_operators_word_and_forbids_what_stands(
    liar: Liar, seat: Seat
) -> None:
    built = await record_transfer(liar, 1_300_000)
    child, files = liar.net.child(seat.identity), liar.net.files(seat.identity)
    log = files.directory / "log.sqlite"
    await child.stop()
    log.unlink()
    answer = await asyncio.to_thread(run_participant, "run", "--config", files.config)
    assert answer.returncode == ExitCode.NOT_FOUND, answer.stdout + answer.stderr
    assert "--new-signing-log" in json.loads(answer.stdout)["error"]["remedy"]
    consent = await asyncio.to_thread(run_participant, "init", "--new-signing-log", "--config", files.config)
    assert json.loads(consent.stdout)["data"]["signing_log"] == str(log)
    again = await asyncio.to_thread(run_participant, "init", "--new-signing-log", "--config", files.config)
    assert again.returncode == ExitCode.REFUSED
    await liar.net.start_pods([seat.identity])
    other = liar.transfer(built.spends[0].item, rate=FeeRate(built.intent.fee_rate + 1_000))
    heard = await liar.ask(seat, liar.endorsement(seat, other.intent, other.transaction.to_bytes()))
    assert_all_refuse({"pod": heard}, "V07", "CONFLICTING_SPEND")
    await liar.send(built, *await liar.sign_both(built))
    await liar.book(built)


# ------------------------------------------------------------------------------ whoever should not call


def build_empty_sign() -> signing_pb2.SignRequest:
    """Return a request that only its caller's role can be refused for."""
    return signing_pb2.SignRequest(envelope=envelope_pb2.Envelope())


@pytest.mark.parametrize("role", [PeerRole.OPERATOR, PeerRole.USER, PeerRole.CONSENSUS])
async def test_nobody_but_a_coordinator_or_a_validator_calls_sign(
    liar: Liar, seat: Seat, tmp_path: Path, role: PeerRole
) -> None:
    identity = IdentityKey(compute_xonly_key(SecretKey.generate(os.urandom(32))))
    files = issue_certificate(
        liar.net.layout.authority, PeerIdentity(Network.REGTEST, role, identity), tmp_path / "tls"
    )
    channel = open_channel(liar, seat, files)
    client = channel.client(signing_pb2_grpc.SigningServiceStub)
    with pytest.raises(Refused) as refused:
        await client.call(lambda stub: stub.Sign, build_empty_sign(), seconds=5)
    assert refused.value.code == "PERMISSION_DENIED"
    await channel.close()


async def test_a_user_is_not_told_how_a_pod_is(liar: Liar, seat: Seat) -> None:
    channel = open_channel(liar, seat, liar.net.layout.user_tls)
    client = channel.client(participant_pb2_grpc.ParticipantServiceStub)
    with pytest.raises(Refused):
        await client.call(lambda stub: stub.Status, participant_pb2.StatusRequest(), seconds=5)
    await channel.close()


async def test_callers_of_another_authority_or_without_a_certificate_or_in_plain_text_get_nothing(
    liar: Liar, seat: Seat, tmp_path: Path
) -> None:
    init_ca(tmp_path / "ca", Network.REGTEST)
    foreign = issue_certificate(
        tmp_path / "ca", PeerIdentity(Network.REGTEST, PeerRole.COORDINATOR, liar.net.pods.leader), tmp_path / "tls"
    )
    believed = replace(foreign, ca=liar.net.layout.coordinator.tls.ca)
    for files in (believed, believed.ca):
        channel = open_channel(liar, seat, files)
        client = channel.client(signing_pb2_grpc.SigningServiceStub)
        with pytest.raises(BridgeError) as failed:
            await client.call(lambda stub: stub.Sign, build_empty_sign(), seconds=5)
        assert failed.value.code in {"UNAVAILABLE", "UNAUTHENTICATED"}
        await channel.close()
    async with grpc.aio.insecure_channel(endpoint_of(liar, seat)) as plain:
        with pytest.raises(grpc.aio.AioRpcError) as closed:
            await signing_pb2_grpc.SigningServiceStub(plain).Sign(build_empty_sign(), timeout=5)
    assert closed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert isinstance(await liar.ask(seat, await honest_endorsement(liar, seat)), Answered)


def open_channel(liar: Liar, seat: Seat, files: TlsFiles | Path) -> RpcChannel:
    """Return a channel to a pod with another caller's certificate."""
    expect = PeerIdentity(Network.REGTEST, PeerRole.PARTICIPANT, seat.identity)
    return RpcChannel(endpoint_of(liar, seat), files, expect=expect)


def endpoint_of(liar: Liar, seat: Seat) -> str:
    """Return where a pod listens."""
    return next(each.endpoint for each in liar.net.genesis.validators if each.identity == seat.identity)


# ------------------------------------------------------------------------------ what is no message


async def honest_endorsement(liar: Liar, seat: Seat) -> EndorseRequest:
    """Return a request that every pod would grant."""
    built = liar.transfer(await liar.deposit(2_000_000))
    return liar.endorsement(seat, built.intent, built.transaction.to_bytes())


async def test_damaged_bodies_are_answered_at_once_and_by_refusals_alone(liar: Liar, seat: Seat) -> None:
    rng, honest = random.Random(1), await honest_endorsement(liar, seat)
    sealed = liar.net.pods.seal(honest)
    started, pid = time.monotonic(), liar.net.child(seat.identity).pid
    for _ in range(FUZZ_ROUNDS):
        body = damage_bytes(sealed.envelope.body, rng)
        question = liar.seal_body(sealed, body)
        heard = await liar.net.pods.hear(seat, question, seconds=5)
        assert is_tame(heard), describe(heard)
    assert (time.monotonic() - started) / FUZZ_ROUNDS < SECONDS_EACH
    assert liar.net.child(seat.identity).pid == pid
    assert "call.failed" not in liar.net.files(seat.identity).log.read_text()


async def test_extreme_fields_under_a_good_signature_are_refused_and_nothing_breaks(liar: Liar, seat: Seat) -> None:
    rng, built = random.Random(2), await record_transfer(liar, 2_100_000)
    requests = [await honest_endorsement(liar, seat), *build_every_request(liar, seat, built)]
    before = read_rss(liar, seat)
    for number in range(FUZZ_ROUNDS * 3):
        changed = change_field(requests[number % len(requests)], rng)
        try:
            question = liar.seal(changed)
        except ValueError:
            continue  # what has no canonical bytes cannot be sent
        heard = await liar.net.pods.hear(seat, question, seconds=10)
        assert is_tame(heard) or isinstance(heard, Answered), f"{describe(heard)} {changed}"[:2000]
    assert "call.failed" not in liar.net.files(seat.identity).log.read_text()
    assert read_rss(liar, seat) - before < 50 * MEGABYTE
    await liar.send(built, *await liar.sign_both(built))
    await liar.book(built)


def build_every_request(liar: Liar, seat: Seat, built: BuiltTransaction) -> list[Request]:
    """Return one request of every kind but Endorse, each about something real."""
    booking = liar.net.ledger.compute_booking(built.intent.intent_id)
    intent, outpoint = built.intent.intent_id, built.spends[0].item.outpoint
    subjects = (
        BookingSubject(booking),
        WithdrawalSubject(intent, EPOCH),
        DeadSubject(intent, outpoint, booking.txid, EPOCH),
        ReadySubject(Attempt(0), bytes(32)),
    )
    commits = [CommitRequest(liar.header(seat.group, Purpose.BOOKING, intent), subject) for subject in subjects]
    header = commits[0].header
    dkg = replace(header, purpose=None, suite=DKG_SUITE)
    return [
        liar.commitment(seat, built),
        *commits,
        SignRequest(header, (0, 1, 2), bytes(130)),
        AbortRequest(header, "no reason"),
        liar.completion(seat, built, (Signature(bytes(64)),), (Signature(bytes(64)),)),
        DkgStep1Request(dkg, liar.net.group(Role.VALIDATOR).host_keys, 3),
        DkgStep2Request(dkg, bytes(100)),
        DkgFinalizeRequest(dkg, bytes(100)),
        DkgInvestigateRequest(dkg, bytes(100)),
        DkgRecoverRequest(dkg, liar.net.group(Role.VALIDATOR).recovery_data),
    ]


async def test_a_message_too_large_is_turned_away_and_one_below_the_limit_is_read(liar: Liar, seat: Seat) -> None:
    channel = RpcChannel(
        endpoint_of(liar, seat), liar.net.layout.coordinator.tls, limits=ChannelLimits(max_message_bytes=200_000_000)
    )
    client = channel.client(signing_pb2_grpc.SigningServiceStub)
    before = read_rss(liar, seat)
    below = await client.call(lambda stub: stub.Commit, build_commit(5_000_000), seconds=20)
    assert below.answer.refusal.rule == "V03"
    for size in (8 * 1024 * 1024 + 1, 100_000_000):
        with pytest.raises(BridgeError) as refused:
            await client.call(lambda stub: stub.Commit, build_commit(size), seconds=20)
        assert refused.value.code == "RESOURCE_EXHAUSTED"
    await channel.close()
    assert read_rss(liar, seat) - before < 50 * MEGABYTE


def build_commit(size: int) -> signing_pb2.CommitRequest:
    """Return a request whose body has so many bytes and nobody's signature."""
    body = bytes(size)
    envelope = envelope_pb2.Envelope(session_id=bytes(32), sender=bytes(32), signature=bytes(64), body=body)
    return signing_pb2.CommitRequest(envelope=envelope)


FUZZ_ROUNDS = 150
SECONDS_EACH = 1.0
"""Five times what case G15 allows: other tests share the machine."""

TAME = frozenset({"INVALID_ARGUMENT", "NODE_BEHIND", "WRONG_MESSAGE", "RESOURCE_EXHAUSTED"})


def is_tame(heard: object) -> bool:
    """Tell whether a pod refused by a rule, or said what is wrong with the message."""
    return isinstance(heard, Declined) or (isinstance(heard, Lost) and heard.code in TAME)
