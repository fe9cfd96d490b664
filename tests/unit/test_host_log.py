"""Logs: one JSON object a line, ids bound once, nothing secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from smpc.host.log import LogLevel, configure_logging, is_event_name
from smpc.host.private_file import Passphrase


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logging(LogLevel.INFO, stream=stream, pod="pod-01")
    yield stream
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_the_ids_bound_once(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(epoch=3):
        structlog.get_logger().info("session.signed", session=b"\x01" * 32, inputs=2)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "session.signed", "level": "info", "pod": "pod-01", "epoch": 3, "inputs": 2, "session": "01" * 32,
    }  # fmt: skip


def test_the_level_decides_what_is_written(stream: io.StringIO) -> None:
    structlog.get_logger().debug("address.watched", address="bcrt1...")
    assert lines(stream) == []


def test_secrets_do_not_reach_the_log(stream: io.StringIO) -> None:
    secret = "correct horse"
    structlog.get_logger().info(
        "keystore.opened",
        passphrase=secret,
        host_secret=b"\x07" * 32,
        nonces=[1, 2],
        key=Passphrase(secret.encode()),
        body=b"\x07" * 64,
    )
    assert "horse" not in stream.getvalue()
    assert "0707" not in stream.getvalue()


def test_a_peers_words_are_cut(stream: io.StringIO) -> None:
    structlog.get_logger().info("peer.refused", text="x" * 100_000)
    assert len(stream.getvalue()) < 3_000


def test_libraries_log_in_the_same_form(stream: io.StringIO) -> None:
    logging.getLogger("some.library").warning("odd %s", "thing")
    logging.getLogger("some.library").info("chatter")
    (line,) = lines(stream)
    assert (line["event"], line["library"], line["text"]) == ("library.reported", "some.library", "odd thing")


def test_an_exception_is_part_of_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("task.failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in line["exception"]


@pytest.mark.parametrize("event", ["session.signed", "pod.key_made", "dkg.round.finished"])
def test_an_event_names_a_noun_and_what_happened(event: str) -> None:
    assert is_event_name(event)


@pytest.mark.parametrize("event", ["signed", "Session.signed", "session signed", "session.", ""])
def test_a_sentence_is_not_an_event(event: str) -> None:
    assert not is_event_name(event)
