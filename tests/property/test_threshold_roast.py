"""ROAST against any mix of silent, slow, refusing and hostile members, in any order of arrival."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.threshold.roast import (
    AskNonces,
    AskShares,
    CheckSession,
    DeadlinePassed,
    Effect,
    Event,
    MemberLost,
    NoncesArrived,
    PatienceEnded,
    Phase,
    RoastRecord,
    SessionRefuted,
    SessionVerified,
    SharesArrived,
    start,
    step,
)

HONEST, MUTE, SILENT_SIGNER, LIAR, REFUSER = range(5)


@dataclass
class _World:
    """Members with fixed manners; answers arrive in random order."""

    manners: list[int]
    chance: random.Random
    record: RoastRecord
    inbox: list[Event] = field(default_factory=list)
    asked: set[tuple[int, int]] = field(default_factory=set)
    used: set[tuple[int, int]] = field(default_factory=set)

    def absorb(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, AskNonces):
                assert (effect.member, effect.attempt) not in self.asked
                self.asked.add((effect.member, effect.attempt))
                self.answer_nonces(effect)
            elif isinstance(effect, AskShares):
                assert self.used.isdisjoint(effect.signers), "one set of nonces in two sessions"
                assert self.asked.issuperset(effect.signers)
                self.used.update(effect.signers)
                for member, _ in effect.signers:
                    self.answer_shares(effect.session, member)
            elif isinstance(effect, CheckSession):
                members = self.record.sessions[effect.session].members
                liars = tuple(member for member in members if self.manners[member] == LIAR)
                verdict = SessionRefuted(effect.session, liars) if liars else SessionVerified(effect.session)
                self.inbox.append(verdict)

    def answer_nonces(self, ask: AskNonces) -> None:
        if self.manners[ask.member] != MUTE:
            self.inbox.append(NoncesArrived(ask.member, ask.attempt))

    def answer_shares(self, session: int, member: int) -> None:
        manner = self.manners[member]
        if manner == REFUSER:
            self.inbox.append(MemberLost(member, "V21"))
        elif manner in {HONEST, LIAR}:
            self.inbox.append(SharesArrived(session, member))

    def run(self) -> None:
        waiting: deque[int] = deque()
        while self.record.phase in {Phase.COMMITTING, Phase.SIGNING}:
            if self.inbox:
                event = self.inbox.pop(self.chance.randrange(len(self.inbox)))
            elif waiting:
                event = PatienceEnded(waiting.popleft())
            else:
                fresh = [s.number for s in self.record.sessions if s.state == "open"]
                if not fresh:
                    event = DeadlinePassed()
                else:
                    waiting.extend(fresh)
                    continue
            transition = step(self.record, event)
            self.record = transition.record
            self.absorb(transition.effects)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(min_value=1, max_value=9), st.randoms(use_true_random=False))
def test_a_threshold_of_honest_members_always_signs_within_the_bound(
    data: st.DataObject, size: int, chance: random.Random
) -> None:
    threshold = data.draw(st.integers(min_value=1, max_value=size))
    manners = data.draw(st.lists(st.integers(HONEST, REFUSER), min_size=size, max_size=size))
    begin = start(threshold, size)
    world = _World(manners, chance, begin.record)
    world.absorb(begin.effects)
    world.run()
    honest = manners.count(HONEST)
    liars = {member for member, manner in enumerate(manners) if manner == LIAR}
    assert world.record.culprits <= liars
    assert len(world.record.sessions) <= size - threshold + 1
    if honest >= threshold:
        assert world.record.phase is Phase.SIGNED
    else:
        assert world.record.phase is Phase.FAILED
        assert world.record.failure is not None
        assert set(world.record.failure.culprits) <= liars
