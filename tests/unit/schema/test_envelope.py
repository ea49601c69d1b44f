import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.envelope import MAX_PAYLOAD_BYTES, BadEnvelope, Envelope, seal, unseal

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)
ENVELOPES = st.builds(Envelope, type=NAMES, version=st.integers(1, 65535), payload=st.binary(max_size=500))


@given(ENVELOPES)
def test_what_is_sealed_comes_back(envelope: Envelope) -> None:
    assert unseal(seal(envelope)) == envelope


@given(ENVELOPES)
def test_every_truncation_and_every_extension_is_refused(envelope: Envelope) -> None:
    data = seal(envelope)
    for end in range(len(data)):
        with pytest.raises(BadEnvelope):
            unseal(data[:end])
    with pytest.raises(BadEnvelope):
        unseal(data + b"\0")


@given(ENVELOPES, st.data())
def test_every_flipped_bit_is_noticed(envelope: Envelope, data: st.DataObject) -> None:
    sealed = bytearray(seal(envelope))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadEnvelope):
        unseal(bytes(sealed))


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(BadEnvelope):
        unseal(data)


@given(st.binary(max_size=300))
def test_rubbish_behind_the_magic_is_refused(data: bytes) -> None:
    with pytest.raises(BadEnvelope):
        unseal(b"DKE1" + data)


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(type="", version=1, payload=b""),
        Envelope(type="x" * 256, version=1, payload=b""),
        Envelope(type="x", version=0, payload=b""),
        Envelope(type="x", version=65536, payload=b""),
        Envelope(type="x", version=1, payload=bytes(MAX_PAYLOAD_BYTES + 1)),
    ],
)
def test_an_envelope_that_the_layout_cannot_hold_is_refused(envelope: Envelope) -> None:
    with pytest.raises(ValueError, match=r"envelope|payload"):
        seal(envelope)
