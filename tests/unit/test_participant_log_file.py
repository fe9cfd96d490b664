"""A signing log that succeeds a lost one: what may have been signed under the old one counts as signed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from smpc.errors import Refused
from smpc.participant.signing_claims import MessageClaim, SpendClaim
from smpc.participant.signing_log import Asked, SigningLog
from smpc.types import (
    EpochNumber,
    GroupId,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Purpose,
    Role,
    SessionId,
    Txid,
)

ME = IdentityKey(b"\x01" * 32)
GROUP = GroupId(EpochNumber(3), Role.VALIDATOR)
NOW = KaonHeight(50)


def intent(number: int) -> IntentId:
    return IntentId(bytes([number]) * 32)


def recorded(number: int) -> SpendClaim:
    outpoint = Outpoint(Txid(bytes([number]) * 32), 0)
    return SpendClaim(intent(number), Txid(b"\x05" * 32), Purpose.TRANSFER, frozenset({outpoint}))


def withdraw(log: SigningLog, number: int) -> bytes:
    question = hashlib.sha256(b"%d" % number).digest()
    asked = Asked(SessionId(question), GROUP, question, b"withdraw", NOW)
    return log.record_message(asked, b"share", MessageClaim(Purpose.WITHDRAWAL, intent(number), bytes(32)))


def test_a_successor_withdraws_nothing_that_stood_when_it_began(tmp_path: Path) -> None:
    log = SigningLog.create(tmp_path / "log.sqlite", network=Network.REGTEST, identity=ME, is_successor=True)
    log.merge_recorded_intents([recorded(1)], height=NOW)
    with pytest.raises(Refused) as refused:
        withdraw(log, 1)
    assert (refused.value.rule, refused.value.code) == ("V73", "SHARE_RELEASED")
    log.close()


def test_a_successor_withdraws_what_was_recorded_after_it_began(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    SigningLog.create(path, network=Network.REGTEST, identity=ME, is_successor=True).close()
    log = SigningLog.open(path, network=Network.REGTEST, identity=ME)
    log.merge_recorded_intents([recorded(1)], height=NOW)
    log.close()
    log = SigningLog.open(path, network=Network.REGTEST, identity=ME)
    log.merge_recorded_intents([recorded(1), recorded(2)], height=NOW)
    assert withdraw(log, 2) == b"share"
    assert log.has_released(intent(1))
    log.close()


def test_a_first_log_withdraws_what_it_never_signed(tmp_path: Path) -> None:
    log = SigningLog.create(tmp_path / "log.sqlite", network=Network.REGTEST, identity=ME)
    log.merge_recorded_intents([recorded(1)], height=NOW)
    assert withdraw(log, 1) == b"share"
    log.close()
