"""The lifecycle document is what the tables say."""

from __future__ import annotations

from deploy.docs.generate_diagrams import DOCUMENT, build_document
from smpc.protocol.epoch import EPOCH
from tests.support.lifecycle_samples import LIFECYCLES


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == build_document(), "run python -m deploy.docs.generate_diagrams"


def test_every_lifecycle_is_drawn_with_every_state() -> None:
    text = build_document()
    machines = [*(life.machine for life in LIFECYCLES.values()), EPOCH]
    assert text.count("stateDiagram-v2") == len(machines)
    for machine in machines:
        for state in machine.states:
            assert f"{state}" in text
