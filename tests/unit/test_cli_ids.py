"""Ids and numbers as people type them: one to ten ASCII digits, and a refusal for everything else (case D12)."""

from __future__ import annotations

import pytest

from coordinator.cli.emergency_commands import find_outpoints
from coordinator.cli.ids import MAX_POSITION, find_number, parse_outpoint
from smpc.errors import ConfigError, InvalidInput, NotFound
from smpc.participant.app import split_address
from smpc.types import Outpoint, Txid, outpoint_from_text
from tests.support.armed_world import ArmedWorld

TXID = "ab" * 32
STRANGE = ["1" * 5000, "1" * 11, "٣", "\uff11", "²", "-1", "+1", "1e5", "1_0", " 1", "1\n", ""]
"""No numbers; the first is more than Python reads at all."""


@pytest.mark.parametrize("text", STRANGE)
def test_no_number_is_read_into_other_signs_or_too_many_digits(text: str) -> None:
    assert find_number(text) is None
    with pytest.raises(InvalidInput):
        parse_outpoint(f"{TXID}:{text}")
    with pytest.raises(ValueError, match="outpoint must be txid:vout"):
        outpoint_from_text(f"{TXID}:{text}")


def test_the_highest_position_is_read_and_one_more_is_not() -> None:
    assert parse_outpoint(f"{TXID}:{MAX_POSITION}") == Outpoint(Txid(b"\xab" * 32), MAX_POSITION)
    assert outpoint_from_text(f"{TXID}:{MAX_POSITION}") == Outpoint(Txid(b"\xab" * 32), MAX_POSITION)
    with pytest.raises(InvalidInput):
        parse_outpoint(f"{TXID}:{MAX_POSITION + 1}")
    with pytest.raises(ValueError, match="outpoint must be txid:vout"):
        outpoint_from_text(f"{TXID}:{MAX_POSITION + 1}")


@pytest.mark.parametrize("text", STRANGE)
def test_whatever_is_asked_for_is_answered_with_an_error_of_ours(text: str) -> None:
    with pytest.raises(InvalidInput):
        find_outpoints(ArmedWorld.filled().ledger, text)


def test_an_epochs_number_is_looked_up_and_one_beyond_all_numbers_refused() -> None:
    ledger = ArmedWorld.filled(500_000).ledger
    assert set(ledger.vault) <= set(find_outpoints(ledger, "0"))
    for text, error in (("7", NotFound), (str(2**32), InvalidInput)):
        with pytest.raises(error):
            find_outpoints(ledger, text)


@pytest.mark.parametrize("port", ["1" * 5000, "65536", "٣", ""])
def test_a_port_that_is_none_is_an_error_of_the_configuration(port: str) -> None:
    assert split_address("127.0.0.1:65535") == ("127.0.0.1", 65_535)
    with pytest.raises(ConfigError):
        split_address(f"127.0.0.1:{port}")
