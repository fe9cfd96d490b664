"""What a sweep writes into Bitcoin: tag, epoch, block and state, in one output every node relays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smpc.bitcoin.script import OutputType, find_output_type
from smpc.protocol.notarisation import OP_RETURN_SHAPE, PAYLOAD_BYTES, Notarisation, build_op_return, find_notarisation
from smpc.types import EpochNumber, KaonHash

SAMPLE = Notarisation(EpochNumber(7), KaonHash(b"\x0b" * 32), b"\x0c" * 32)

notarisations = st.builds(
    Notarisation,
    st.integers(0, 2**32 - 1).map(EpochNumber),
    st.binary(min_size=32, max_size=32).map(KaonHash),
    st.binary(min_size=32, max_size=32),
)


@given(notarisations)
def test_what_is_read_is_what_was_written(notarisation: Notarisation) -> None:
    assert find_notarisation(build_op_return(notarisation)) == notarisation


def test_the_output_is_an_op_return_within_eighty_bytes() -> None:
    script = build_op_return(SAMPLE)
    assert find_output_type(script) is OutputType.OP_RETURN
    assert len(script) == len(OP_RETURN_SHAPE) == 75
    assert PAYLOAD_BYTES <= 80
    assert script.hex() == "6a49" + b"KAON".hex() + "01" + "00000007" + "0b" * 32 + "0c" * 32


@pytest.mark.parametrize("place", [0, 1, 2, 5, 6])
def test_another_tag_version_or_push_is_no_notarisation_of_ours(place: int) -> None:
    script = bytearray(build_op_return(SAMPLE))
    script[place] ^= 1
    assert find_notarisation(bytes(script)) is None


@pytest.mark.parametrize("script", [b"", b"\x6a", build_op_return(SAMPLE)[:-1], build_op_return(SAMPLE) + b"\x00"])
def test_another_length_is_no_notarisation(script: bytes) -> None:
    assert find_notarisation(script) is None
