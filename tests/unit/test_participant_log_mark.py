"""A signing log that was restored from a backup knows that it may have forgotten what left this pod."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from smpc.errors import Refused, Unavailable
from smpc.participant.signing_claims import MessageClaim, SpendClaim
from smpc.participant.signing_log import Asked, SigningLog
from smpc.participant.vote_log import CastVote
from smpc.types import (
    EpochNumber,
    GroupId,
    IdentityKey,
    IntentId,
    KaonHash,
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
TIP = KaonHeight(60)
NAMES = ("log.sqlite", "log.sqlite-wal", "log.sqlite.mark")


def spend(number: int) -> SpendClaim:
    outpoint = Outpoint(Txid(bytes([number]) * 32), 0)
    return SpendClaim(IntentId(bytes([number]) * 32), Txid(b"\x05" * 32), Purpose.TRANSFER, frozenset({outpoint}))


def vote(height: int, block: int = 1) -> CastVote:
    return CastVote(KaonHeight(height), KaonHash(bytes([block]) * 32))


def ask(text: str) -> Asked:
    question = hashlib.sha256(text.encode()).digest()
    return Asked(SessionId(question), GROUP, question, text.encode(), NOW)


def share(log: SigningLog, number: int) -> bytes:
    return log.record_share(ask(f"share {number}"), b"share", spend(number))


def withdraw(log: SigningLog, number: int) -> bytes:
    return log.record_message(
        ask(f"withdraw {number}"), b"withdrawn", MessageClaim(Purpose.WITHDRAWAL, spend(number).intent, bytes(32))
    )


class Disk:
    """A pod's directory, with one log that signed a little; the ledger knows intents 1 and 2."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "log.sqlite"
        self.mark = root / "log.sqlite.mark"

    def create(self) -> SigningLog:
        return SigningLog.create(self.path, network=Network.REGTEST, identity=ME)

    def open(self) -> SigningLog:
        """Open the log as a pod does at its start."""
        log = SigningLog.open(self.path, network=Network.REGTEST, identity=ME)
        log.merge_recorded_intents([spend(1), spend(2)], height=NOW, tip=TIP)
        return log

    def copy(self, name: str) -> Disk:
        """Copy everything as it is on the disk now, while the pod may run."""
        other = Disk(self.root / name)
        other.root.mkdir()
        for each in NAMES:
            if (self.root / each).exists():
                shutil.copy(self.root / each, other.root / each)
        return other

    def restore(self, backup: Disk) -> None:
        """Put a backup's log in the place of this one; the mark stays."""
        for each in NAMES[:2]:
            (self.root / each).unlink(missing_ok=True)
            if (backup.root / each).exists():
                shutil.copy(backup.root / each, self.root / each)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def is_trusted(log: SigningLog) -> bool:
    """Tell whether the log takes what it does not know of as never signed, and close it; all or nothing of it."""
    released = log.has_released(spend(1).intent)
    answers = [is_accepted(lambda: withdraw(log, 1)), is_accepted(lambda: log.record_vote(vote(TIP)))]
    log.close()
    assert len({not released, *answers}) == 1
    return not released


def is_accepted(sign: Callable[[], object]) -> bool:
    try:
        sign()
    except Refused:
        return False
    return True


def test_a_new_log_is_current(disk: Disk) -> None:
    disk.create().close()
    assert is_trusted(disk.open())


def test_a_log_is_current_after_an_orderly_stop(disk: Disk) -> None:
    log = disk.create()
    share(log, 2)
    log.close()
    assert is_trusted(disk.open())


def test_a_log_is_current_after_a_crash(disk: Disk) -> None:
    log = disk.create()
    share(log, 2)
    crashed = disk.copy("crashed")
    log.close()
    assert is_trusted(crashed.open())


def test_a_log_is_current_after_a_crash_between_commit_and_mark(disk: Disk) -> None:
    log = disk.create()
    before = disk.mark.read_bytes()
    share(log, 2)
    crashed = disk.copy("crashed")
    log.close()
    assert crashed.mark.read_bytes() != before
    crashed.mark.write_bytes(before)
    assert is_trusted(crashed.open())


def sign_share(log: SigningLog) -> None:
    share(log, 1)


def cast_vote(log: SigningLog) -> None:
    log.record_vote(vote(8))


@pytest.mark.parametrize("sign", [sign_share, cast_vote])
def test_a_copy_one_step_older_than_its_mark_is_restored(disk: Disk, sign: Callable[[SigningLog], None]) -> None:
    disk.create().close()
    log = disk.open()
    backup = disk.copy("backup")  # taken while the pod runs, by the same run that goes on
    sign(log)
    log.close()
    disk.restore(backup)
    assert not is_trusted(disk.open())


def test_a_restored_log_takes_no_withdrawal_and_no_vote_up_to_the_newest_block(disk: Disk) -> None:
    disk.create().close()
    backup = disk.copy("backup")
    log = disk.open()
    share(log, 1)
    log.record_vote(vote(8))
    log.close()
    disk.restore(backup)
    for _ in range(2):  # also after one more start
        log = disk.open()
        with pytest.raises(Refused) as refused:
            withdraw(log, 1)
        assert (refused.value.rule, refused.value.code) == ("V73", "SHARE_RELEASED")
        for cast in (vote(8), vote(8, 2), vote(TIP), vote(TIP, 2)):
            with pytest.raises(Refused):
                log.record_vote(cast)
        last = log.find_last_vote()
        assert last == CastVote(TIP, KaonHash(bytes(32)))
        log.close()
    log = disk.open()
    assert withdraw(log, 3) == b"withdrawn"  # recorded later: nothing of it was signed before
    log.record_vote(vote(TIP + 1))
    log.close()


def test_a_log_without_its_mark_is_restored(disk: Disk) -> None:
    disk.create().close()
    disk.mark.unlink()
    assert not is_trusted(disk.open())


@pytest.mark.parametrize("content", [b"", b"\x00" * 23, b"\x00" * 24])
def test_a_log_beside_a_damaged_mark_is_restored(disk: Disk, content: bytes) -> None:
    disk.create().close()
    disk.mark.write_bytes(content)
    assert not is_trusted(disk.open())


def test_a_log_of_a_branch_that_was_left_is_restored_however_far_it_came(disk: Disk) -> None:
    disk.create().close()
    older = disk.copy("older")
    log = disk.open()
    for number in range(3, 9):
        share(log, number)
    log.close()
    newer = disk.copy("newer")
    disk.restore(older)
    log = disk.open()
    share(log, 1)
    log.close()
    disk.restore(newer)
    assert not is_trusted(disk.open())


def test_a_restored_log_is_current_from_then_on(disk: Disk) -> None:
    disk.create().close()
    disk.mark.unlink()
    disk.open().close()
    log = SigningLog.open(disk.path, network=Network.REGTEST, identity=ME)
    log.merge_recorded_intents([spend(3)], height=NOW, tip=KaonHeight(TIP + 9))
    assert not log.has_released(spend(3).intent)
    log.record_vote(vote(TIP + 1))
    log.close()


def test_a_log_of_a_version_without_marks_withdraws_nothing_but_knows_its_votes(disk: Disk) -> None:
    log = disk.create()
    log.record_vote(vote(8))
    log.close()
    disk.mark.unlink()
    older = sqlite3.connect(disk.path)
    older.execute("DELETE FROM meta WHERE key = 'position'")
    older.commit()
    older.close()
    log = disk.open()
    assert log.has_released(spend(1).intent)
    assert log.find_last_vote() == vote(8)
    log.close()
    assert disk.mark.exists()


def test_nothing_leaves_before_the_mark_is_written(disk: Disk) -> None:
    log = disk.create()
    disk.mark.unlink()
    disk.mark.mkdir()
    for _ in range(2):  # also the answer that is in the log already
        with pytest.raises(Unavailable):
            share(log, 1)
    disk.mark.rmdir()
    assert share(log, 1) == b"share"
    log.close()
    log = disk.open()
    assert log.find_last_vote() is None
    log.close()
