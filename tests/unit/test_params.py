"""Stories about the protocol presets."""

from __future__ import annotations

import dataclasses

import pytest

from smpc.errors import ConfigError
from smpc.params import MAINNET, REGTEST, Params, find_preset
from smpc.types import BtcHeight, KaonHeight, Network


@pytest.mark.parametrize(
    ("size", "threshold"), [(3, 3), (4, 3), (5, 4), (50, 34), (99, 67), (100, 67), (101, 68), (128, 86)]
)
def test_threshold_is_two_thirds_and_one(size: int, threshold: int) -> None:
    assert REGTEST.compute_threshold(size) == threshold


@pytest.mark.parametrize("preset", [MAINNET, REGTEST])
def test_every_preset_leaves_room_between_accepting_and_refunding(preset: Params) -> None:
    last_signing_age = preset.refund_csv - preset.refund_stop
    assert preset.confirmations < last_signing_age < preset.refund_csv


@pytest.mark.parametrize(
    ("changes", "inequality"),
    [
        ({"emergency_csv": 3}, "emergency_csv < transfer_csv"),
        ({"transfer_csv": 4}, "transfer_csv == confirmations"),
        ({"refund_stop": 33}, "confirmations + refund_stop < refund_csv"),
        ({"recovery_csv": 36}, "refund_csv < recovery_csv"),
        ({"recovery_csv": 65536}, "refund_csv < recovery_csv"),
        ({"credit_confirmations": 4}, "credit_confirmations <= confirmations"),
    ],
)
def test_refuses_contradictory_locks_and_names_the_inequality(changes: dict[str, int], inequality: str) -> None:
    with pytest.raises(ConfigError, match=inequality.replace("+", r"\+")):
        dataclasses.replace(REGTEST, **changes)  # type: ignore[arg-type]


def test_accepts_a_refund_margin_one_block_inside_the_limit() -> None:
    assert dataclasses.replace(REGTEST, refund_stop=32).refund_stop == 32


def test_window_is_over_at_its_last_final_block_and_not_before() -> None:
    recorded = KaonHeight(100)
    assert not REGTEST.is_window_over(recorded, KaonHeight(101))
    assert REGTEST.is_window_over(recorded, KaonHeight(102))


def test_invoice_expires_after_its_validity() -> None:
    assert MAINNET.compute_invoice_expiry(BtcHeight(1000)) == 1018


def test_a_network_without_a_preset_is_named() -> None:
    with pytest.raises(ConfigError, match="signet"):
        find_preset(Network.SIGNET)
