"""Hostile bytes end in a typed error with the bit position, in time and memory that the input bounds."""

import time
import tracemalloc

import exi_fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_charger.v2g.exi import NAMESPACES, ExiDecodeError, codec, decode, encode

SCHEMAS = st.sampled_from(sorted(NAMESPACES))


@settings(max_examples=1500)
@given(st.binary(max_size=300), SCHEMAS, st.booleans())
def test_noise(data, schema, fragment):
    exi_fuzz.check(b"\x80" + data, schema, fragment)


@settings(max_examples=1500)
@given(st.randoms(use_true_random=False))
def test_damaged_messages(random):
    exi_fuzz.check(*exi_fuzz.hostile(random))


def test_many():
    assert sum(exi_fuzz.run(5000, seed=1).values()) == 5000


@pytest.mark.parametrize("length", [b"\xff" * 9 + b"\x7f", b"\xff" * 200 + b"\x01"])
def test_absurd_lengths(length):
    """A text that claims to have 2**70 characters, or a length of 1400 bits."""
    head = encode({"AuthorizationReq": {"Id": "x"}}, "iso15118_2")[:2]  # up to the attribute's code
    with pytest.raises(ExiDecodeError):
        decode(head + length, "iso15118_2", fragment=True)


def dense_list():
    """What makes the most objects from the fewest bits: a long list of all but empty elements."""
    entry = {"X509IssuerName": "", "X509SerialNumber": 0}
    return encode({"X509Data": {"X509IssuerSerial": [entry] * 25000}}, "xmldsig")


@pytest.mark.parametrize("pattern", [b"\x00", b"\xff", b"\x55", b"\x08", "list"])
def test_time_and_memory_grow_with_the_input_only(pattern):
    data = dense_list() if pattern == "list" else b"\x80" + pattern * 65536
    for schema in NAMESPACES:
        codec.grammar(schema)
        tracemalloc.start()
        start = time.process_time()
        for fragment in (False, True):
            try:
                decode(data, schema, fragment)
            except ExiDecodeError as error:
                assert error.position <= 8 * len(data)
        seconds = time.process_time() - start
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < 5, schema
        assert peak < 200 * len(data), schema
