"""A small world in which every output is armed before anything is recorded; E signs by its interpolated secret."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pegin.model import BuiltTransaction
from pegin.vault import EpochKeys, build_vault_tree
from slashing.build import build_armings, build_renewal
from slashing.model import ArmingFacts, BuiltArming, BuiltRejection, RejectionFacts
from slashing.rejection import review_rejection
from slashing.review import review_arming
from smpc.bitcoin.taproot import VaultTree
from smpc.errors import BridgeError
from smpc.params import REGTEST, Params
from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.protocol.intents import Intent
from smpc.protocol.pod_messages import ArmingSubject, RejectionSubject
from smpc.protocol.records import Genesis
from smpc.protocol.review import Verdict
from smpc.protocol.verdict_records import RejectionSigned, compute_rejection_subject
from smpc.types import EmergencyMode, EpochNumber, GroupId, IntentId, Outpoint, Purpose, Role
from tests.support.groups import EPOCH, sign_with_child
from tests.support.sweep_world import SweepWorld
from tests.support.turning_chain import TurningChain, build_turning_genesis, list_identities


@functools.cache
def build_armed_genesis() -> Genesis:
    """Return the genesis of `build_turning_genesis()` with armings."""
    return replace(build_turning_genesis(), emergency=EmergencyMode.ARMED)


class ArmedChain(TurningChain):
    """A turning chain that arms; `record` arms an intent before it records it."""

    def __init__(self, params: Params = REGTEST, genesis: Genesis | None = None) -> None:
        super().__init__(params, genesis or build_armed_genesis())

    def pre_sign(self, built: BuiltArming) -> ArmingRecorded:
        """Return the record with E's signature of every rung."""
        group = self.keyed[built.arming.epoch].groups[Role.EMERGENCY]
        return built.to_record([sign_with_child(group, child, digest) for child, digest in built.list_tasks()])

    def reject(self, built: BuiltRejection) -> RejectionSigned:
        """Return the record with W's signature of every rung."""
        group = self.keyed[built.arming.epoch].groups[Role.WITNESS]
        return built.to_record([sign_with_child(group, child, digest) for child, digest in built.list_tasks()])

    def list_armings(self, intent: Intent) -> tuple[ArmingRecorded, ...]:
        """Return the records that arm an intent."""
        return tuple(self.pre_sign(built) for built in build_armings(self.ledger, intent))

    def record(self, intent: Intent) -> IntentId:
        """Arm an intent and record it, in two blocks."""
        known = self.ledger.records
        self.add(*(record for record in self.list_armings(intent) if record.record_id not in known))
        return super().record(intent)

    def silence(self, epoch: int, role: Role, count: int = 2) -> None:
        """Let a group's first `count` members go silent until its verdict is final, if they are enough for one."""
        quiet = set(self.entry(epoch).members[role][:count])
        heard = [number for number, identity in enumerate(list_identities()) if identity not in quiet]
        start = self.ledger.height
        while self.ledger.height < start + 2 * self.ledger.params.silence_blocks:
            self.pulse(validators=heard)
            first = self.finalise_by(heard)
            if self.ledger.judgements.is_final(EpochNumber(epoch), role):
                return
            assert first

    def finalise_by(self, validators: Sequence[int]) -> int:
        """As `finalise`, by the votes of these validators only."""
        while self.ledger.height % CHECKPOINT_BLOCKS:
            self.add()
        first = self.ledger.height
        self.skip(CHECKPOINT_BLOCKS)
        self.vote(first, validators)
        self.vote(first + CHECKPOINT_BLOCKS, validators)
        return first

    def renew(self, epoch: int, outpoints: Sequence[Outpoint]) -> None:
        """Arm booked outputs again."""
        self.add(self.pre_sign(build_renewal(self.ledger, EpochNumber(epoch), outpoints)))


@dataclass(slots=True)
class ArmedWorld(SweepWorld):
    """As `SweepWorld`, on a chain that arms."""

    @classmethod
    def filled(cls, *values: int, params: Params = REGTEST) -> ArmedWorld:
        """Return a world whose active epoch 0 holds one booked deposit per value."""
        world = cls(ArmedChain.started(params), {}, {})
        world.fill_vault(*values)
        return world

    @classmethod
    def retiring(cls, *values: int, params: Params = REGTEST) -> ArmedWorld:
        """Return a world whose epoch 0 holds value and retires."""
        world = cls.filled(*values, params=params)
        world.turn()
        return world

    @classmethod
    def released(cls, *values: int, params: Params = REGTEST) -> ArmedWorld:
        """Return a world whose V of epoch 0 fell silent: its outputs are released, epoch 1 is active."""
        world = cls.filled(*values, params=params)
        world.release()
        return world

    def release(self) -> None:
        """Let V of epoch 0 fall silent until its verdict is final; `chain.epoch` is epoch 0's again after it."""
        self.armed.silence(EPOCH, Role.VALIDATOR)
        self.chain.epoch = self.turning.keyed[EPOCH]

    @property
    def armed(self) -> ArmedChain:
        """The chain."""
        assert isinstance(self.chain, ArmedChain)
        return self.chain

    def vault_tree(self, epoch: EpochNumber, position: int) -> VaultTree:
        """Return a vault position's tree as the flows build it."""
        return build_vault_tree(self.ledger.params, EpochKeys.from_entry(self.ledger.epochs[epoch]), position)

    # -------------------------------------------------------------- E's judgement

    def arming_facts(self, subject: ArmingSubject, parent: BuiltTransaction | None) -> ArmingFacts:
        """Gather what an honest member of E knows when asked to arm."""
        session = self.session(Purpose.ARMING, subject.arming.digest, Role.EMERGENCY)
        group = GroupId(subject.arming.epoch, Role.EMERGENCY)
        header = replace(session.header, group=group)
        session = replace(session, header=header, claimed_id=header.session_id, own_group=group)
        return ArmingFacts(session=session, node=self.node, parent=parent, inputs=dict(self.outputs))

    def try_rebuild(self, intent: Intent) -> BuiltTransaction | None:
        """Build what an intent chose as a member does; None when that is impossible."""
        try:
            return self.rebuild(intent)
        except BridgeError:
            return None

    def review_arming(self, subject: ArmingSubject, parent: BuiltTransaction | None, **changes: object) -> Verdict:
        """Judge an arming as a member of E does; facts may be said otherwise."""
        facts = replace(self.arming_facts(subject, parent), **changes)  # type: ignore[arg-type]
        return review_arming(self.ledger, facts, subject)

    # -------------------------------------------------------------- W's judgement

    def rejection_facts(self, subject: RejectionSubject) -> RejectionFacts:
        """Gather what an honest member of W knows when asked to sign a rejection."""
        group = GroupId(subject.arming.epoch, Role.WITNESS)
        session = self.session(Purpose.REJECTION, compute_rejection_subject(subject.arming), Role.WITNESS)
        header = replace(session.header, group=group)
        session = replace(session, header=header, claimed_id=header.session_id, own_group=group)
        return RejectionFacts(session, self.ledger.height)

    def review_rejection(self, subject: RejectionSubject, **changes: object) -> Verdict:
        """Judge a rejection as a member of W does; facts may be said otherwise."""
        facts = replace(self.rejection_facts(subject), **changes)  # type: ignore[arg-type]
        return review_rejection(self.ledger, facts, subject)


def arm_deposit(world: ArmedWorld, *values: int) -> tuple[BuiltTransaction, tuple[BuiltArming, ...]]:
    """Return the transfer of new deposits of epoch 0 and what arms it."""
    first = len(world.ledger.invoices)
    built = world.transfer(*(world.deposit(first + at, value) for at, value in enumerate(values)))
    return built, build_armings(world.ledger, built.intent)
