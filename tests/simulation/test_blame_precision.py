"""Nobody honest is ever slashed, whatever the others sign and whatever a relay makes of what everybody signed.

Seeded: honest pods of one V answer a relay that asks them for other transactions, other signers and other sums; liars
among them seal wrong shares, nonces, second answers and ceremony messages. All of it goes, whole, mixed and tampered
with, to the ledger, which alone decides.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from smpc.bitcoin.transaction import parse_transaction
from smpc.errors import BridgeError, Conflict, InvalidInput, NotFound, Refused
from smpc.params import REGTEST
from smpc.protocol.ceremony_records import CeremonyFault, WrongCertificate, WrongShare
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.evidence import (
    CeremonyOffence,
    Evidence,
    InvalidNonce,
    InvalidShare,
    Membership,
    ShareAnswer,
    SignedTask,
    TwoAnswers,
)
from smpc.protocol.measuring import list_absent, list_measured
from smpc.protocol.pod_messages import Envelope, SessionHeader, SignReply
from smpc.protocol.records import Record
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.spend_sighting import find_shown_evidence
from smpc.protocol.verdict_records import AbsenceVote, EvidenceRecorded
from smpc.protocol.verdict_state import Misdeed, Penalty
from smpc.threshold.complaint import participant_complain
from smpc.types import ChildIndex, EpochNumber, IdentityKey, KaonHeight, Network, Role, Sats
from tests.support.armed_world import ArmedChain, ArmedWorld
from tests.support.chain import UNSIGNED
from tests.support.evidence_world import EvidenceWorld, read
from tests.support.faulty_ceremony import AUX, CeremonySession, flip_share, open_session
from tests.support.groups import make_secret, sign
from tests.support.turning_chain import list_identities, list_secrets
from tests.support.verdict_chain import complain

V, W = Role.VALIDATOR, Role.WITNESS
ACCUSATIONS = 150
"""What the relay submits in one run."""


@dataclass
class Bag:
    """Everything a relay has seen, to be put together anew."""

    requests: list[Envelope] = field(default_factory=list)
    headers: list[SessionHeader] = field(default_factory=list)
    commitments: list[Envelope] = field(default_factory=list)
    answers: list[Envelope] = field(default_factory=list)
    tasks: list[tuple[SignedTask, ...]] = field(default_factory=list)
    parts: list[ShareAnswer] = field(default_factory=list)
    spends: list[UnauthorisedSpend] = field(default_factory=list)
    whole: list[Evidence] = field(default_factory=list)
    """Evidence as a liar's own messages make it."""


class Relay:
    """One run: a V with some liars, its sessions, and what the relay and the liars bring to the ledger."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = ArmedWorld.filled()
        self.pods = EvidenceWorld(directory, self.world)
        self.world.turning.finalise_to(self.world.ledger.height)
        self.liars = set(self.dice.sample(range(4), self.dice.randrange(4)))
        self.guilty: set[IdentityKey] = set()
        self.bag = Bag()

    @property
    def members(self) -> tuple[IdentityKey, ...]:
        return self.pods.group.info.members

    # -------------------------------------------------------------- what everybody signs

    async def run_sessions(self) -> None:
        """Open sessions about two transactions, with other signers, other sums for some, and lies of the liars."""
        for attempt in range(1, self.dice.randint(3, 5)):
            built = self.dice.choice((self.pods.first, self.pods.second))
            header, subject = self.pods.header(built, attempt), self.pods.pods.subject(built)
            signers = sorted(self.dice.sample(range(4), self.dice.randint(3, 4)))
            sealed = {at: await self.pods.commit(at, subject, header) for at in signers}
            self.bag.headers.append(header)
            self.bag.commitments += sealed.values()
            self.bag.tasks.append(self.pods.tasks(built))
            for at in signers:
                chosen = [at, *self.dice.sample([other for other in signers if other != at], 2)]
                request = self.pods.round_two(header, [sealed[each] for each in sorted(chosen)])
                part = ShareAnswer(
                    self.pods.seal_request(request),
                    sealed[at],
                    await self.pods.share(at, request),
                    self.pods.tasks(built),
                )
                self.note(part)
                if at in self.liars:
                    self.lie(at, header, part)
            self.show(built.intent.intent_id)

    def note(self, part: ShareAnswer) -> None:
        self.bag.parts.append(part)
        self.bag.requests.append(part.request)
        self.bag.answers.append(part.answer)

    def lie(self, at: int, header: SessionHeader, part: ShareAnswer) -> None:
        """Let a liar seal something else as well, under its own key."""
        match self.dice.randrange(5):
            case 0:
                shares = bytearray(read(part.answer, SignReply).shares)
                shares[self.dice.randrange(len(shares))] ^= 1 << self.dice.randrange(8)
                false = self.pods.lie_share(at, part, bytes(shares))
                self.accuse(at, InvalidShare(self.pods.member(at), false))
                self.note(false)
            case 1:
                false = self.pods.lie_share(at, part, self.dice.randbytes(64))
                self.accuse(at, TwoAnswers(self.pods.member(at), part, false))
                self.note(false)
            case 2:
                wrong = self.dice.choice((b"", bytes(130), b"\x04" + bytes(259), bytes(131)))
                found = self.pods.lie_nonces(at, header, part.commitment, wrong)
                self.accuse(at, found)
                self.bag.commitments.append(found.commitment)
            case 3:
                session = open_session(self.pods.epoch, V, salt=str(self.dice.randrange(3)))
                fault = session.accuse_share(self.dice.choice([each for each in range(4) if each != at]), at)
                self.accuse(at, self.offend(session, fault))
            case _:
                pass  # It only stays silent.

    def accuse(self, at: int, evidence: Evidence) -> None:
        self.guilty.add(self.members[at])
        self.bag.whole.append(evidence)

    def show(self, intent_id: bytes) -> None:
        """Note what V's rightful signatures of a recorded transaction look like as evidence."""
        built = next(each for each in (self.pods.first, self.pods.second) if each.intent.intent_id == intent_id)
        shown = find_shown_evidence(
            self.world.ledger, built.intent, built.transaction.to_bytes(), self.world.sign(built, V)
        )
        assert shown is not None
        self.bag.spends.append(shown)

    # -------------------------------------------------------------- what is made of it

    def draw_evidence(self) -> Evidence:
        """Return an accusation: true, put together of anything that was ever signed, or made up."""
        makers: tuple[Callable[[], Evidence], ...] = (
            lambda: InvalidShare(self.draw_member(), self.draw_part()),
            lambda: TwoAnswers(self.draw_member(), self.draw_part(), self.draw_part()),
            lambda: InvalidNonce(
                self.draw_member(), self.dice.choice(self.bag.headers), self.dice.choice(self.bag.commitments)
            ),
            self.draw_ceremony,
            self.draw_ceremony,
            self.draw_spend,
            self.draw_spend,
            self.draw_tampered,
        )
        return self.dice.choice(makers)()

    def draw_member(self) -> Membership:
        at = self.dice.randrange(4)
        found = self.pods.member(at)
        match self.dice.randrange(6):
            case 0:
                other = self.pods.epoch.groups[W].info.recovery_data
                return replace(found, recovery_data=other)
            case 1:
                return self.pods.member(at, self.pods.epoch.groups[W])
            case 2:
                return replace(found, announced=replace(found.announced, identity=self.dice.choice(self.members)))
            case _:
                return found

    def draw_part(self) -> ShareAnswer:
        part, bag = self.dice.choice(self.bag.parts), self.bag
        for _ in range(self.dice.randrange(4)):
            match self.dice.randrange(4):
                case 0:
                    part = replace(part, request=self.dice.choice(bag.requests))
                case 1:
                    part = replace(part, commitment=self.dice.choice(bag.commitments))
                case 2:
                    part = replace(part, answer=self.dice.choice(bag.answers))
                case _:
                    part = replace(part, tasks=self.dice.choice([*bag.tasks, part.tasks[::-1], part.tasks[:1]]))
        return part

    def offend(self, session: CeremonySession, fault: CeremonyFault) -> CeremonyOffence:
        announced = tuple(self.pods.announced[key] for key in session.host_keys)
        return CeremonyOffence(fault, announced, session.threshold)

    def draw_ceremony(self) -> Evidence:
        """Accuse an honest member of a ceremony by what it sealed, with others' secrets and the relay's lies."""
        role = self.dice.choice(list(Role))
        session = open_session(self.pods.epoch, role, salt=str(self.dice.randrange(3)))
        other = open_session(self.pods.epoch, role, salt=str(self.dice.randrange(3)))
        accuser, accused = self.dice.sample(range(4), 2)
        honest = session.accuse_first(accused, bytes)
        match self.dice.randrange(4):
            case 0:
                fault = honest
            case 1:
                fault = session.accuse_certificate(accused, honest=True)
                if self.dice.random() < 0.7:
                    fault = replace(fault, proof=WrongCertificate(other.broadcast()[1]))
            case 2:
                # The accuser opens the mask of a share that the accused never sealed, and shows what it did seal.
                forged = flip_share(accuser)(session.begin(accused)[1])
                secret = session.host_secrets[accuser]
                proof = participant_complain(secret, session.params, accused, forged, AUX)
                fault = replace(honest, proof=WrongShare(session.members[accuser], proof.to_bytes()))
            case _:
                fault = replace(honest, message=other.seal_first(accused), proof=honest.proof)
        return replace(self.offend(session, fault), threshold=self.dice.choice((2, 3, 3, 3, 4)))

    def draw_spend(self) -> Evidence:
        """Turn rightful signatures of a recorded transaction into one of another, as far as bytes can."""
        spend = self.dice.choice(self.bag.spends)
        signed = parse_transaction(spend.transaction)
        first = signed.inputs[0]
        changes: tuple[Callable[[], UnauthorisedSpend], ...] = (
            lambda: spend,
            lambda: self.rewrite(spend, replace(first, script_sig=self.dice.randbytes(self.dice.randint(1, 40)))),
            lambda: self.rewrite(spend, replace(first, sequence=first.sequence ^ 1)),
            lambda: replace(spend, transaction=replace(signed, locktime=1).to_bytes()),
            lambda: replace(spend, transaction=replace(signed, version=3).to_bytes()),
            lambda: replace(spend, transaction=replace(signed, outputs=signed.outputs[::-1]).to_bytes()),
            lambda: replace(spend, annex=b"\x50" + self.dice.randbytes(3)),
            lambda: replace(spend, validator_signature=spend.validator_signature + b"\x01"),
            lambda: replace(spend, witness_signature=spend.validator_signature, validator_signature=b""),
            lambda: replace(spend, position=spend.position + 1),
            lambda: replace(spend, output=replace(spend.output, epoch=EpochNumber(1))),
            lambda: replace(spend, output=replace(spend.output, child=ChildIndex(spend.output.child + 1))),
            lambda: replace(spend, prevouts=tuple(replace(it, value=Sats(it.value + 1)) for it in spend.prevouts)),
        )
        return self.dice.choice(changes)()

    @staticmethod
    def rewrite(spend: UnauthorisedSpend, first: object) -> UnauthorisedSpend:
        signed = parse_transaction(spend.transaction)
        changed = replace(signed, inputs=(first, *signed.inputs[1:]))  # type: ignore[arg-type]
        return replace(spend, transaction=changed.to_bytes())

    def draw_tampered(self) -> Evidence:
        """Change a byte or two of any evidence; what cannot be read any more is dropped."""
        whole = self.dice.choice(
            [*self.bag.whole, *self.bag.spends, InvalidShare(self.draw_member(), self.draw_part())]
        )
        content = bytearray(encode_variant(whole))
        for _ in range(self.dice.randint(1, 2)):
            content[self.dice.randrange(len(content))] ^= self.dice.randint(1, 255)
        try:
            found: Evidence = decode_variant(Evidence, bytes(content))
        except InvalidInput:
            return whole
        return found

    # -------------------------------------------------------------- the ledger

    def submit(self, record: Record) -> bool:
        try:
            self.world.chain.add(record)
        except (Refused, InvalidInput, Conflict, NotFound):
            return False
        return True


def list_punished(relay: Relay) -> dict[IdentityKey, set[tuple[Penalty, Misdeed]]]:
    everything = relay.world.ledger.judgements.punishments
    return {key: {(item.penalty, item.misdeed) for item in items} for key, items in everything.items()}


async def accuse_all(directory: Path, seed: int) -> tuple[int, int]:
    """Run one seed: how many were slashed, and how many are proven liars."""
    relay = Relay(directory, seed)
    try:
        await relay.run_sessions()
        drawn = [relay.draw_evidence() for _ in range(ACCUSATIONS)]
        brought = [*drawn, *relay.bag.whole]
        relay.dice.shuffle(brought)
        for evidence in brought:
            relay.submit(EvidenceRecorded(evidence))
        punished = list_punished(relay)
        assert set(punished) == relay.guilty, f"seed {seed}: {len(punished)} punished, {len(relay.guilty)} guilty"
        assert all(item == {(Penalty.SLASHED, Misdeed.OFFENCE)} for item in punished.values()), f"seed {seed}"
        judged = {role for _, role in relay.world.ledger.judgements.verdicts}
        assert judged <= ({V} if len(relay.guilty) >= 2 else set()), f"seed {seed}: {judged} judged"
        return len(punished), len(relay.liars)
    finally:
        for pod in relay.pods.pods.pods.values():
            pod.log.close()


async def accuse_many(directory: Path, seeds: Sequence[int]) -> None:
    slashed = 0
    for seed in seeds:
        place = directory / str(seed)
        place.mkdir()
        slashed += (await accuse_all(place, seed))[0]
    assert slashed, "no run proved anything against anybody"


async def test_exactly_the_proven_liars_are_slashed_whatever_a_relay_makes_of_what_was_signed(tmp_path: Path) -> None:
    await accuse_many(tmp_path, range(24))


@pytest.mark.soak
async def test_over_many_seeds_exactly_the_proven_liars_are_slashed(tmp_path: Path) -> None:
    await accuse_many(tmp_path, range(1_000, 1_150))


# ------------------------------------------------------------------ what only many may say together


def vote(voter: IdentityKey, accused: IdentityKey, window: int) -> AbsenceVote:
    record = AbsenceVote(Network.REGTEST, KaonHeight(window), accused, voter, UNSIGNED)
    return replace(record, signature=sign(list_secrets()[list_identities().index(voter)], record.digest))


def lie_about_absence(seed: int, windows: int) -> None:
    """Let just under a third of the stake say of everybody that he does not answer, and one who does not be there.

    The others say what they saw. Whoever is jailed for it must be the absent one or a liar.
    """
    dice, chain = random.Random(seed), ArmedChain.started()
    everybody = list(list_identities())
    dice.shuffle(everybody)
    liars, absent = set(everybody[: (len(everybody) - 1) // 3]), everybody[-1]
    for _ in range(windows):
        length = REGTEST.silence_blocks
        start = (chain.ledger.height // length + 1) * length
        chain.finalise_to(start + length)
        found = chain.ledger.judgements.windows[KaonHeight(start)]
        for voter in everybody:
            measured = list_measured(found, chain.ledger.stakes, voter)
            seen = list_absent({peer: peer != absent for peer in measured})
            for accused in measured if voter in liars else seen:
                with suppress(BridgeError):
                    chain.add(vote(voter, accused, start))
        jailed = {
            key
            for key, items in chain.ledger.judgements.punishments.items()
            if any(item.misdeed is Misdeed.ABSENCE for item in items)
        }
        assert jailed <= {absent, *liars}, f"seed {seed}: an answering validator was jailed for absence"


def test_a_third_that_lies_about_absence_jails_nobody_who_answers() -> None:
    for seed in range(6):
        lie_about_absence(seed, 2)


@pytest.mark.soak
def test_over_many_windows_a_third_that_lies_about_absence_jails_nobody_who_answers() -> None:
    for seed in range(20):
        lie_about_absence(seed, 3)


@pytest.mark.parametrize("role", [V, W])
def test_fewer_than_t_liars_who_complain_about_everything_have_no_group_judged(role: Role) -> None:
    world = ArmedWorld.filled(400_000)
    chain = world.armed
    built = world.transfer(world.deposit(len(world.ledger.invoices), 90_000))
    intent_id = chain.record(built.intent)
    chain.finalise_to(chain.ledger.height + REGTEST.challenge_blocks + REGTEST.silence_blocks + 1)
    accusers = chain.entry(0).groups[V if role is W else W]
    for member in accusers.members[: accusers.threshold - 1]:
        chain.add(complain(member, role, intent_id))
    forged = replace(complain(accusers.members[-1], role, intent_id), signature=sign(make_secret("nobody"), bytes(32)))
    assert chain.refusal(forged) == "BAD_SIGNATURE"
    assert not world.ledger.judgements.verdicts
    assert not world.ledger.judgements.punishments
    chain.add(complain(accusers.members[-1], role, intent_id))
    assert list(world.ledger.judgements.verdicts) == [(EpochNumber(0), role)]
