"""A member's side of a key ceremony before a relay that repeats, changes and floods: nothing is kept for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smpc.curve import SecretKey
from smpc.params import REGTEST
from smpc.participant.ceremonies import Ceremonies
from smpc.participant.shares import ShareRing
from smpc.participant.signing_log import SigningLog
from smpc.protocol.ceremony_records import compute_dkg_subject
from smpc.protocol.ledger_state import DrawOrigin, EpochEntry, EpochState
from smpc.protocol.pod_messages import (
    DKG_SUITE,
    SIGNING_SUITE,
    DkgFault,
    DkgFinalizeRequest,
    DkgRecoverRequest,
    DkgReply,
    DkgStep1Request,
    DkgStep2Request,
    Refusal,
    SessionHeader,
    compute_protocol_hash,
)
from smpc.threshold.dkg import SessionParams, coordinator_finalize, coordinator_step1
from smpc.types import Attempt, EpochNumber, GroupId, HostKey, IdentityKey, KaonHeight, Network, Purpose, Role
from tests.support.chain import LedgerChain
from tests.support.groups import make_xonly

GROUP = GroupId(EpochNumber(0), Role.VALIDATOR)
HEIGHT = KaonHeight(5)


class Relay:
    """An announced epoch, V's members and a relay's pen."""

    def __init__(self, directory: Path) -> None:
        chain = LedgerChain()
        chain.add(chain.epoch.announced)
        chain.add(*chain.epoch.host_keys)
        self.epoch: EpochEntry = chain.ledger.epochs[GROUP.epoch]
        group = chain.epoch.groups[Role.VALIDATOR]
        self.host_keys = group.info.host_keys
        self.threshold = group.info.threshold
        self.logs: list[SigningLog] = []
        self.rings: list[ShareRing] = []
        self.members = [self._open(secret, directory) for secret in group.identities]

    def _open(self, secret: SecretKey, directory: Path) -> Ceremonies:
        ring = ShareRing(secret, Network.REGTEST)
        self.rings.append(ring)
        path = directory / f"{ring.identity.hex()}.sqlite"
        self.logs.append(SigningLog.create(path, network=Network.REGTEST, identity=ring.identity))
        return Ceremonies(ring, Network.REGTEST, self.logs[-1])

    def header(self, slot: int = 5, leader: str = "relay") -> SessionHeader:
        return SessionHeader(
            protocol=compute_protocol_hash(REGTEST),
            suite=DKG_SUITE,
            network=Network.REGTEST,
            group=GROUP,
            slot=KaonHeight(slot),
            leader=IdentityKey(make_xonly(leader)),
            purpose=None,
            subject=compute_dkg_subject(Network.REGTEST, GROUP, Attempt(0), self.host_keys),
            attempt=Attempt(0),
        )

    def begin(self) -> bytes:
        """Run step 1 with every member; the relay's broadcast."""
        request = DkgStep1Request(self.header(), self.host_keys, self.threshold)
        replies = [member.step1(request, self.epoch, HEIGHT) for member in self.members]
        messages = [reply.message for reply in replies if isinstance(reply, DkgReply)]
        _, broadcast = coordinator_step1(messages, SessionParams(self.host_keys, self.threshold))
        return broadcast

    async def finish(self) -> None:
        """Run a whole ceremony: every member holds a share whose key is not recorded yet."""
        request = DkgStep1Request(self.header(), self.host_keys, self.threshold)
        replies = [member.step1(request, self.epoch, HEIGHT) for member in self.members]
        messages = [reply.message for reply in replies if isinstance(reply, DkgReply)]
        state, broadcast = coordinator_step1(messages, SessionParams(self.host_keys, self.threshold))
        signed = [await member.step2(DkgStep2Request(self.header(), broadcast)) for member in self.members]
        signatures = [reply.message for reply in signed if isinstance(reply, DkgReply)]
        certificate, _ = coordinator_finalize(state, signatures)
        for member in self.members:
            assert isinstance(await member.finalize(self.ask_finalize(certificate)), DkgReply)

    def ask_finalize(self, certificate: bytes = b"") -> DkgFinalizeRequest:
        return DkgFinalizeRequest(self.header(), certificate)


async def is_forgotten(member: Ceremonies, relay: Relay) -> bool:
    """Tell whether a member knows nothing of the ceremony any more."""
    answer = await member.finalize(relay.ask_finalize())
    return isinstance(answer, Refusal) and answer.rule == "V09"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    opened = Relay(tmp_path)
    yield opened
    for log in opened.logs:
        log.close()


def swap(keys: tuple[HostKey, ...]) -> tuple[HostKey, ...]:
    return (keys[1], keys[0], *keys[2:])


STEP1_LIES: dict[str, tuple[Callable[[DkgStep1Request], DkgStep1Request], str, str]] = {
    "a lower threshold": (lambda it: replace(it, threshold=it.threshold - 1), "V06", "WRONG_GROUP"),
    "a higher threshold": (lambda it: replace(it, threshold=it.threshold + 1), "V06", "WRONG_GROUP"),
    "another order": (lambda it: replace(it, host_keys=swap(it.host_keys)), "V06", "WRONG_GROUP"),
    "a member less": (lambda it: replace(it, host_keys=it.host_keys[:-1]), "V06", "WRONG_GROUP"),
    "a key of the relay's": (
        lambda it: replace(it, host_keys=(*it.host_keys[:-1], HostKey(b"\x02" + make_xonly("relay")))),
        "V06",
        "WRONG_GROUP",
    ),
    "an attempt that is not open": (
        lambda it: replace(it, header=replace(it.header, attempt=Attempt(1))),
        "V06",
        "KEY_NOT_READY",
    ),
    "another group": (
        lambda it: replace(it, header=replace(it.header, group=GroupId(GROUP.epoch, Role.WITNESS))),
        "V06",
        "WRONG_GROUP",
    ),
    "a signing suite": (
        lambda it: replace(it, header=replace(it.header, suite=SIGNING_SUITE)),
        "V04",
        "SESSION_ID_MISMATCH",
    ),
    "a purpose": (
        lambda it: replace(it, header=replace(it.header, purpose=Purpose.READY)),
        "V04",
        "SESSION_ID_MISMATCH",
    ),
    "another subject": (
        lambda it: replace(it, header=replace(it.header, subject=bytes(32))),
        "V04",
        "SESSION_ID_MISMATCH",
    ),
}


@pytest.mark.parametrize("lie", STEP1_LIES)
def test_no_member_begins_a_ceremony_with(relay: Relay, lie: str) -> None:
    tell, rule, reason = STEP1_LIES[lie]
    honest = DkgStep1Request(relay.header(), relay.host_keys, relay.threshold)
    for member in relay.members:
        answer = member.step1(tell(honest), relay.epoch, HEIGHT)
        assert isinstance(answer, Refusal)
        assert (answer.rule, answer.reason) == (rule, reason)


def test_no_member_begins_a_ceremony_again_once_its_key_is_recorded(relay: Relay) -> None:
    chain = LedgerChain.activated()
    request = DkgStep1Request(relay.header(), relay.host_keys, relay.threshold)
    answer = relay.members[0].step1(request, chain.ledger.epochs[GROUP.epoch], HEIGHT)
    assert isinstance(answer, Refusal)
    assert (answer.rule, answer.reason) == ("V06", "EPOCH_CLOSED")


async def test_a_repeated_question_gets_the_same_answer(relay: Relay) -> None:
    broadcast = relay.begin()
    request = DkgStep2Request(relay.header(), broadcast)
    first = await relay.members[0].step2(request)
    assert isinstance(first, DkgReply)
    assert await relay.members[0].step2(request) == first


async def test_another_question_of_an_answered_step_is_refused_and_the_answer_stays(relay: Relay) -> None:
    request = DkgStep2Request(relay.header(), relay.begin())
    first = await relay.members[0].step2(request)
    for number in range(3):
        other = await relay.members[0].step2(replace(request, message=bytes(number)))
        assert isinstance(other, Refusal)
        assert other.rule == "V09"
    assert await relay.members[0].step2(request) == first


async def test_a_damaged_broadcast_is_a_fault_that_blames_nobody_for_certain(relay: Relay) -> None:
    broadcast = bytearray(relay.begin())
    broadcast[40] ^= 1
    answer = await relay.members[0].step2(DkgStep2Request(relay.header(), bytes(broadcast)))
    assert isinstance(answer, DkgFault)
    assert not answer.is_proven


async def test_a_step_of_a_ceremony_that_never_began_is_refused(relay: Relay) -> None:
    broadcast = relay.begin()
    answer = await relay.members[0].step2(DkgStep2Request(relay.header(slot=6), broadcast))
    assert isinstance(answer, Refusal)
    assert answer.rule == "V09"


async def test_another_coordinator_that_begins_the_same_attempt_ends_no_running_ceremony(relay: Relay) -> None:
    broadcast = relay.begin()
    other = DkgStep1Request(relay.header(slot=6, leader="other"), relay.host_keys, relay.threshold)
    for member in relay.members:
        assert isinstance(member.step1(other, relay.epoch, HEIGHT), DkgReply)
        assert isinstance(await member.step2(DkgStep2Request(relay.header(), broadcast)), DkgReply)


async def test_a_coordinator_that_begins_again_ends_its_own_earlier_ceremony(relay: Relay) -> None:
    broadcast, member = relay.begin(), relay.members[0]
    again = DkgStep1Request(relay.header(slot=6), relay.host_keys, relay.threshold)
    assert isinstance(member.step1(again, relay.epoch, HEIGHT), DkgReply)
    answer = await member.step2(DkgStep2Request(relay.header(), broadcast))
    assert isinstance(answer, Refusal)
    assert answer.rule == "V09"


@pytest.mark.parametrize("state", [EpochState.ANNOUNCED, EpochState.KEYGEN])
async def test_a_ceremony_of_an_epoch_that_makes_its_keys_is_remembered(relay: Relay, state: EpochState) -> None:
    await relay.finish()
    relay.members[0].forget_over({GROUP.epoch: replace(relay.epoch, state=state)})
    assert not await is_forgotten(relay.members[0], relay)


@pytest.mark.parametrize("state", [EpochState.STANDBY, EpochState.ACTIVE, EpochState.RETIRED, EpochState.ABORTED])
async def test_a_ceremony_of_an_epoch_past_its_keys_is_forgotten(relay: Relay, state: EpochState) -> None:
    await relay.finish()
    relay.members[0].forget_over({GROUP.epoch: replace(relay.epoch, state=state)})
    assert await is_forgotten(relay.members[0], relay)


async def test_a_ceremony_whose_key_is_recorded_is_forgotten_while_the_epoch_still_makes_others(relay: Relay) -> None:
    await relay.finish()
    recorded = LedgerChain.activated().ledger.epochs[GROUP.epoch].groups
    other = {role: info for role, info in recorded.items() if role is not GROUP.role}
    relay.members[0].forget_over({GROUP.epoch: replace(relay.epoch, groups=other)})
    assert not await is_forgotten(relay.members[0], relay)
    relay.members[0].forget_over({GROUP.epoch: replace(relay.epoch, groups=recorded)})
    assert await is_forgotten(relay.members[0], relay)


async def test_a_ceremony_of_an_earlier_draw_is_forgotten(relay: Relay) -> None:
    await relay.finish()
    origin = DrawOrigin(1, Attempt(1), bytes(32), KaonHeight(0), jailed=(), bound=2, strict_bound=2, redraws=0)
    relay.members[0].forget_over({GROUP.epoch: replace(relay.epoch, origin=origin)})
    assert await is_forgotten(relay.members[0], relay)


async def test_a_share_the_ring_holds_survives_its_ceremony(relay: Relay) -> None:
    await relay.finish()
    held = relay.rings[0].find_pending(GROUP, Attempt(0))
    assert held is not None
    relay.members[0].forget_over({GROUP.epoch: replace(relay.epoch, state=EpochState.STANDBY)})
    assert held.share.public_share == held.key.public_shares[held.position]


async def test_a_share_the_ring_forgot_is_wiped_with_its_ceremony(relay: Relay) -> None:
    await relay.finish()
    held = relay.rings[0].find_pending(GROUP, Attempt(0))
    assert held is not None
    over = {GROUP.epoch: replace(relay.epoch, state=EpochState.RETIRED)}
    relay.rings[0].refresh(over)
    relay.members[0].forget_over(over)
    assert held.share.secret.to_secret_bytes() == bytes(32)


def test_nobody_answers_for_a_ceremony_it_announced_no_key_for(relay: Relay) -> None:
    relay.begin()
    for header in (
        replace(relay.header(), attempt=Attempt(1)),
        replace(relay.header(), group=GroupId(EpochNumber(0), Role.WITNESS)),
    ):
        answer = relay.members[0].recover(DkgRecoverRequest(header, b""), relay.epoch)
        assert isinstance(answer, Refusal)
        assert (answer.rule, answer.reason) == ("V06", "WRONG_GROUP")
    assert isinstance(relay.members[0].recover(DkgRecoverRequest(relay.header(), b""), None), Refusal)
    assert relay.members[0].recover(DkgRecoverRequest(relay.header(), b""), relay.epoch) == DkgReply(b"")
