"""The nonce vault: each nonce leaves once, none is ever written down."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from smpc.errors import Refused, Unavailable
from smpc.participant.nonce_vault import NonceVault
from smpc.types import KaonHeight, SessionId

A, B = SessionId(b"\xaa" * 32), SessionId(b"\xbb" * 32)
LATER = KaonHeight(100)


def new_vault(capacity: int = 100) -> tuple[NonceVault[bytes, str], list[bytes]]:
    wiped: list[bytes] = []
    return NonceVault(capacity, wipe=wiped.append), wiped


def refusal(vault: NonceVault[bytes, str], session: SessionId) -> str:
    with pytest.raises(Refused) as refused:
        vault.take_once(session)
    assert refused.value.rule == "V09"
    return refused.value.code


def test_nonces_leave_once() -> None:
    vault, wiped = new_vault()
    vault.put(A, (b"one", b"two"), "public", expires=LATER)
    assert vault.find_public(A) == "public"
    taken = vault.take_once(A)
    assert (taken.secret, taken.public) == ((b"one", b"two"), "public")
    assert refusal(vault, A) == "NONCE_SPENT"
    assert vault.find_public(A) is None
    assert (len(vault), wiped) == (0, [])


def test_an_unknown_session_has_no_nonces() -> None:
    vault, _ = new_vault()
    assert refusal(vault, A) == "SESSION_BURNT"


def test_burnt_nonces_are_wiped_and_gone() -> None:
    vault, wiped = new_vault()
    vault.put(A, (b"one", b"two"), "public", expires=LATER)
    assert vault.burn(A)
    assert not vault.burn(A)
    assert wiped == [b"one", b"two"]
    assert refusal(vault, A) == "SESSION_BURNT"


@pytest.mark.parametrize("end", ["open", "taken", "burnt"])
def test_a_session_is_opened_once(end: str) -> None:
    vault, _ = new_vault()
    vault.put(A, (b"one",), "public", expires=LATER)
    if end == "taken":
        vault.take_once(A)
    elif end == "burnt":
        vault.burn(A)
    with pytest.raises(Refused) as refused:
        vault.put(A, (b"other",), "public", expires=LATER)
    assert refused.value.code == "SESSION_SEEN"


@pytest.mark.parametrize(("height", "expired"), [(100, False), (101, True)])
def test_nonces_expire_after_their_height(height: int, expired: bool) -> None:
    vault, wiped = new_vault()
    vault.put(A, (b"one",), "public", expires=LATER)
    assert vault.advance(KaonHeight(height)) == ((A,) if expired else ())
    assert wiped == ([b"one"] if expired else [])
    assert len(vault) == (0 if expired else 1)


def test_the_vault_is_bounded_and_empties_again() -> None:
    vault, _ = new_vault(capacity=3)
    vault.put(A, (b"1", b"2"), "public", expires=LATER)
    with pytest.raises(Unavailable):
        vault.put(B, (b"3", b"4"), "public", expires=LATER)
    vault.put(B, (b"3",), "public", expires=LATER)
    vault.take_once(A)
    assert len(vault) == 1


def test_remembered_sessions_are_bounded_until_their_height_passes() -> None:
    vault, _ = new_vault(capacity=5)
    for number in range(5):
        vault.put(SessionId(bytes([number]) * 32), (b"1",), "public", expires=LATER)
        vault.burn(SessionId(bytes([number]) * 32))
    with pytest.raises(Unavailable):
        vault.put(A, (b"1",), "public", expires=LATER)
    vault.advance(KaonHeight(LATER + 1))
    vault.put(A, (b"1",), "public", expires=KaonHeight(LATER + 50))


@pytest.mark.parametrize(("is_guest", "share"), [(False, 7), (True, 3)])
def test_each_kind_of_leader_fills_its_own_share_and_no_more(is_guest: bool, share: int) -> None:
    vault: NonceVault[bytes, str] = NonceVault(10, guest_share=3)
    vault.put(A, (b"1",) * (share - 1), "public", expires=LATER, is_guest=is_guest)
    with pytest.raises(Unavailable) as full:
        vault.put(B, (b"2", b"3"), "public", expires=LATER, is_guest=is_guest)
    assert full.value.code == "VAULT_FULL"
    vault.put(B, (b"2",), "public", expires=LATER, is_guest=is_guest)
    other = SessionId(b"\xcc" * 32)
    vault.put(other, (b"4",) * (10 - share), "public", expires=LATER, is_guest=not is_guest)
    assert len(vault) == 10
    vault.burn(A)
    vault.put(SessionId(b"\xdd" * 32), (b"5",) * (share - 1), "public", expires=LATER, is_guest=is_guest)


@pytest.mark.parametrize("is_guest", [False, True])
def test_what_one_kind_of_leader_ended_keeps_no_other_kind_out(is_guest: bool) -> None:
    vault: NonceVault[bytes, str] = NonceVault(6, guest_share=3)
    for number in range(6):
        vault.put(SessionId(bytes([number]) * 32), (b"1",), "public", expires=LATER, is_guest=is_guest)
        vault.burn(SessionId(bytes([number]) * 32))
    with pytest.raises(Unavailable):
        vault.put(A, (b"1",), "public", expires=LATER, is_guest=is_guest)
    vault.put(B, (b"1",), "public", expires=LATER, is_guest=not is_guest)
    vault.advance(KaonHeight(LATER + 1))
    vault.put(A, (b"1",), "public", expires=KaonHeight(LATER + 50), is_guest=is_guest)


def test_there_is_no_way_to_write_nonces_down() -> None:
    vault, _ = new_vault()
    vault.put(A, (b"\x07" * 32,), "public", expires=LATER)
    nonces = vault.take_once(A)
    for thing in (vault, nonces):
        with pytest.raises(TypeError, match="never pickled"):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.deepcopy(thing)
        with pytest.raises(TypeError):
            copy.copy(thing)
        assert "\\x07" not in repr(thing)


def test_of_many_threads_one_gets_the_nonces() -> None:
    vault, _ = new_vault()
    vault.put(A, (b"one",), "public", expires=LATER)
    start, taken = threading.Barrier(8), []

    def take() -> None:
        start.wait()
        try:
            taken.append(vault.take_once(A))
        except Refused:
            return

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1


class VaultMachine(RuleBasedStateMachine):
    """Whatever is asked in whatever order: no nonce leaves twice, none both leaves and is wiped."""

    def __init__(self) -> None:
        super().__init__()
        self.vault, self.wiped = new_vault(capacity=30)
        self.made = 0
        self.left: list[bytes] = []
        self.height = 0

    sessions = st.integers(0, 5).map(lambda number: SessionId(bytes([number]) * 32))

    @rule(session=sessions, count=st.integers(1, 3), life=st.integers(0, 3))
    def put(self, session: SessionId, count: int, life: int) -> None:
        nonces = tuple(b"%d" % (self.made + each) for each in range(count))
        try:
            self.vault.put(session, nonces, "", expires=KaonHeight(self.height + life))
        except (Refused, Unavailable):
            return
        self.made += count

    @rule(session=sessions)
    def take(self, session: SessionId) -> None:
        try:
            self.left += self.vault.take_once(session).secret
        except Refused:
            return

    @rule(session=sessions)
    def burn(self, session: SessionId) -> None:
        self.vault.burn(session)

    @rule()
    def advance(self) -> None:
        self.height += 1
        self.vault.advance(KaonHeight(self.height))

    @invariant()
    def every_nonce_ends_at_most_once(self) -> None:
        ended = self.left + self.wiped
        assert len(ended) == len(set(ended))
        assert len(ended) + len(self.vault) == self.made


TestVaultMachine = VaultMachine.TestCase
