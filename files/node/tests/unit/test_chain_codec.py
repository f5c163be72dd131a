# SPDX-License-Identifier: Apache-2.0
"""One value, one byte representation."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_node.chain.codec import Value, decode, encode
from holdfast_node.errors import RefusedError


class Sample(Value, frozen=True):
    number: int
    data: bytes
    text: str
    inner: tuple[int, ...] = ()


samples = st.builds(
    Sample,
    st.integers(-(2**63), 2**64 - 1),
    st.binary(max_size=300),
    st.text(max_size=40),
    st.lists(st.integers(0, 2**63 - 1), max_size=20).map(tuple),
)


def decoded_or_malformed(data: bytes) -> Sample | None:
    try:
        return decode(data, Sample)
    except RefusedError as error:
        if error.code != "malformed":
            raise
        return None


@given(samples)
def test_decode_undoes_encode(sample: Sample) -> None:
    """What was encoded comes back equal, and encodes to the same bytes."""
    data = encode(sample)
    assert decode(data, Sample) == sample
    assert encode(decode(data, Sample)) == data


@given(samples, st.data())
def test_a_changed_byte_never_gives_the_same_value(sample: Sample, data: st.DataObject) -> None:
    """Two different encodings of one value would be two identifiers of one transaction."""
    encoded = bytearray(encode(sample))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    assert decoded_or_malformed(bytes(encoded)) != sample


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    """Garbage raises nothing but RefusedError, and what is accepted is canonical."""
    decoded = decoded_or_malformed(data)
    assert decoded is None or encode(decoded) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x94\xcc\x01\xc4\x00\xa0\x90",  # 1 in two bytes
        b"\x94\x01\xc5\x00\x00\xa0\x90",  # length in two bytes
        b"\x94\x01\xc4\x00\xd9\x00\x90",  # str8 for a fixstr
        b"\xdc\x00\x04\x01\xc4\x00\xa0\x90",  # array16 for a fixarray
        b"\x93\x01\xc4\x00\xa0",  # a default left out
        b"\x95\x01\xc4\x00\xa0\x90\x00",  # one field too many
        b"\x94\x01\xc4\x00\xa0\x90\x00",  # bytes behind the value
        b"\x94\x01\xc4\x00\xa1\xff\x90",  # no UTF-8
        b"\x94\x01\xc4\x00\xa0",  # cut short
        b"\x94\x01\xa0\xa0\x90",  # text for bytes
        b"\x94\xca\x3f\x80\x00\x00\xc4\x00\xa0\x90",  # 1.0 for 1
        b"\x84\x01\xc4\x00\xa0\x90",  # a map
        b"\x91" * 100_000,  # deeply nested
    ],
)
def test_other_forms_are_refused(data: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        decode(data, Sample)
    assert caught.value.code == "malformed"


def test_canonical_form_is_the_documented_one() -> None:
    """The bytes are part of the protocol: a change of library must not change them."""
    assert encode(Sample(1, b"", "", ())) == b"\x94\x01\xc4\x00\xa0\x90"
    assert encode((300, b"ab", "é")) == b"\x93\xcd\x01\x2c\xc4\x02ab\xa2\xc3\xa9"


def test_values_are_immutable() -> None:
    with pytest.raises(AttributeError):
        Sample(1, b"", "").number = 2  # type: ignore[misc]
    assert issubclass(Value, msgspec.Struct)


@pytest.mark.parametrize("data", [b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_untyped_and_huge_lengths_are_refused(data: bytes) -> None:
    """A length is no reason to allocate; nesting is no reason to crash."""
    with pytest.raises(RefusedError):
        decode(data, list[object])
