"""Compile the V2G XML schemas into EXI grammar tables (build time only).

Reads the schemas which the ``iso15118`` package ships and writes one small Python module per
schema set into ``grammars/``.  Nothing here runs when a message is coded.

How an element becomes a grammar (W3C EXI 1.0, section 8.5.4): the content model is unrolled into a
position automaton, ``a{2,4}`` becoming ``a a (a (a)?)?``; in every state the productions are put into
the order that the event codes follow: attributes by name, elements in schema order, wildcard, end of
element, characters.  The tables hold the productions in that order and nothing else; the event codes
are their positions (see :mod:`.codec`).

Run ``python -m robot_charger.v2g.exi.compiler`` after a change of schemas.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

XS = "http://www.w3.org/2001/XMLSchema"
UNBOUNDED = -1

# Occurrence limits above these are treated as unbounded.  EXI would have every one unrolled, but the
# grammars in EXICodec.jar do not, and cars and stations are tested against those.  It shows only in a
# list that is exactly full: its end then takes two bits instead of one.
UNROLL_LIMIT = 128
UNROLL_LIMITS = {"iso15118_2": 15}

#: Schema set -> (namespace by which users name it, root schema files).
SCHEMA_SETS: dict[str, tuple[str, str]] = {
    "app_protocol": ("urn:iso:15118:2:2010:AppProtocol", "V2G_CI_AppProtocol.xsd"),
    "din70121": ("urn:din:70121:2012:MsgDef", "din_spec/V2G_CI_MsgDef.xsd"),
    "iso15118_2": ("urn:iso:15118:2:2013:MsgDef", "iso15118_2/V2G_CI_MsgDef.xsd"),
    "iso15118_20_common": (
        "urn:iso:std:iso:15118:-20:CommonMessages",
        "iso15118_20/V2G_CI_CommonMessages.xsd",
    ),
    "iso15118_20_ac": ("urn:iso:std:iso:15118:-20:AC", "iso15118_20/V2G_CI_AC.xsd"),
    "iso15118_20_dc": ("urn:iso:std:iso:15118:-20:DC", "iso15118_20/V2G_CI_DC.xsd"),
    "iso15118_20_acdp": ("urn:iso:std:iso:15118:-20:ACDP", "iso15118_20/V2G_CI_ACDP.xsd"),
    "iso15118_20_wpt": ("urn:iso:std:iso:15118:-20:WPT", "iso15118_20/V2G_CI_WPT.xsd"),
    "xmldsig": ("http://www.w3.org/2000/09/xmldsig#", "xmldsig-core-schema.xsd"),
}

# Value ranges of the built-in integer types; None is unlimited.
INTEGER_RANGES: dict[str, tuple[int | None, int | None]] = {
    "integer": (None, None),
    "nonPositiveInteger": (None, 0),
    "negativeInteger": (None, -1),
    "nonNegativeInteger": (0, None),
    "positiveInteger": (1, None),
    "long": (-(2**63), 2**63 - 1),
    "int": (-(2**31), 2**31 - 1),
    "short": (-(2**15), 2**15 - 1),
    "byte": (-128, 127),
    "unsignedLong": (0, 2**64 - 1),
    "unsignedInt": (0, 2**32 - 1),
    "unsignedShort": (0, 2**16 - 1),
    "unsignedByte": (0, 255),
}
STRING_TYPES = {"string", "normalizedString", "token", "language", "anyURI", "ID", "IDREF", "NCName", "Name"}

QName = tuple[str, str]  # (local name, namespace): sorts the way EXI wants


class SchemaError(ValueError):
    """The schema uses something that this compiler does not know."""


@dataclass
class Element:
    name: QName
    type: Any  # QName of a named type, or the XML node of an anonymous one
    abstract: bool = False
    head: QName | None = None


@dataclass
class Particle:
    kind: str  # "element", "any", "seq", "choice"
    minimum: int = 1
    maximum: int = 1
    element: Element | None = None
    children: list[Particle] = field(default_factory=list)


@dataclass
class Document:
    """One schema file: its target namespace, prefixes and defaults."""

    namespace: str
    prefixes: dict[str, str]
    root: ET.Element

    def qname(self, text: str) -> QName:
        prefix, _, local = text.rpartition(":")
        return local, self.prefixes.get(prefix, "")


def _tag(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]


def _parts(node: ET.Element) -> Iterator[ET.Element]:
    for child in node:
        if isinstance(child.tag, str) and _tag(child) != "annotation":
            yield child


class Schema:
    """All components reachable from one root schema file."""

    def __init__(self, root: Path, library: Path, unroll: int = UNROLL_LIMIT) -> None:
        self.library = library
        self.unroll = unroll
        self.elements: dict[QName, Element] = {}
        self.local_elements: list[Element] = []
        self.types: dict[QName, tuple[ET.Element, Document]] = {}
        self.attributes: dict[QName, QName] = {}
        self._owner: dict[int, Document] = {}
        self._read(root, set())
        self._content: dict[int, tuple] = {}

    def _read(self, path: Path, seen: set[Path]) -> None:
        if not path.exists():  # the -20 schemas name xmldsig as if it lay beside them
            path = next(iter(sorted(self.library.rglob(path.name))))
        path = path.resolve()
        if path in seen:
            return
        seen.add(path)
        prefixes: dict[str, str] = {}
        root: ET.Element | None = None
        for event, item in ET.iterparse(path, events=("start-ns", "end")):
            if event == "start-ns":
                prefixes[item[0]] = item[1]
            else:
                root = item
        assert root is not None
        document = Document(root.get("targetNamespace", ""), prefixes, root)
        for node in _parts(root):
            tag, name = _tag(node), (node.get("name", ""), document.namespace)
            if tag in ("import", "include"):
                self._read(path.parent / node.get("schemaLocation", ""), seen)
            elif tag == "element":
                self.elements[name] = self._element(node, document, True)
            elif tag in ("complexType", "simpleType"):
                self.types[name] = (node, document)
            else:
                raise SchemaError(f"{path.name}: <{tag}> is not supported")

    def _element(self, node: ET.Element, document: Document, is_global: bool) -> Element:
        qualified = is_global or document.root.get("elementFormDefault") == "qualified"
        name = (node.get("name", ""), document.namespace if qualified else "")
        declared: Any = None
        if "type" in node.attrib:
            declared = document.qname(node.attrib["type"])
        else:
            declared = next((c for c in _parts(node) if _tag(c).endswith("Type")), None)
            if declared is None:
                raise SchemaError(f"element {name} has no type")
            self._owner[id(declared)] = document
        head = node.get("substitutionGroup")
        return Element(name, declared, node.get("abstract") == "true", document.qname(head) if head else None)

    def node(self, reference: Any) -> tuple[ET.Element, Document] | None:
        """The definition behind a type reference; None for a built-in type."""
        if not isinstance(reference, tuple):
            return reference, self._owner[id(reference)]
        if reference[1] == XS:
            return None
        return self.types[reference]

    def substitutes(self, head: Element) -> list[Element]:
        """The head and all that may stand for it, in the order of EXI (8.5.4.1.6)."""
        found = {head.name: head}
        grew = True
        while grew:
            grew = False
            for element in self.elements.values():
                if element.head in found and element.name not in found:
                    found[element.name] = element
                    grew = True
        return [found[name] for name in sorted(found)]

    # -- simple types ---------------------------------------------------------------------------

    def simple(self, reference: Any) -> list:
        """The value coding of a simple type: ["bool"], ["enum", [...]], ["nbit", low, high], ..."""
        low: int | None = None
        high: int | None = None
        values: list[str] | None = None
        while True:
            definition = self.node(reference)
            if definition is None:
                break
            node, document = definition
            restriction = next(_parts(node))
            if _tag(restriction) != "restriction":
                raise SchemaError(f"simple type {reference}: <{_tag(restriction)}> is not supported")
            found = [f.get("value", "") for f in _parts(restriction) if _tag(f) == "enumeration"]
            values = values or found
            for facet in _parts(restriction):
                if _tag(facet) == "minInclusive" and low is None:
                    low = int(facet.get("value", ""))
                if _tag(facet) == "maxInclusive" and high is None:
                    high = int(facet.get("value", ""))
                if _tag(facet) == "pattern":
                    raise SchemaError(f"simple type {reference}: <pattern> is not supported")
            reference = document.qname(restriction.attrib["base"])
        base = reference[0]
        if values:
            return ["enum", values]
        if base in INTEGER_RANGES:
            base_low, base_high = INTEGER_RANGES[base]
            low = base_low if low is None else low
            high = base_high if high is None else high
            if low is not None and high is not None and high - low < 4096:
                return ["nbit", low, high]
            return ["uint" if low is not None and low >= 0 else "int", low, high]
        if base == "boolean":
            return ["bool"]
        if base in STRING_TYPES:
            return ["string"]
        if base == "base64Binary":
            return ["base64"]
        if base == "hexBinary":
            return ["hex"]
        raise SchemaError(f"built-in type {base} is not supported")

    def is_simple(self, reference: Any) -> bool:
        definition = self.node(reference)
        if definition is None:
            return reference[0] != "anyType"
        return _tag(definition[0]) == "simpleType"

    # -- complex types --------------------------------------------------------------------------

    def complex(self, reference: Any) -> tuple[list[tuple[QName, list, bool]], list[Particle], Any, bool]:
        """Attributes (name, value, required), particles, simple content or None, mixed."""
        definition = self.node(reference)
        assert definition is not None
        node, document = definition
        if id(node) in self._content:
            return self._content[id(node)]
        attributes: list[tuple[QName, list, bool]] = []
        particles: list[Particle] = []
        content: Any = None
        mixed = node.get("mixed") == "true"
        for child in _parts(node):
            tag = _tag(child)
            if tag in ("complexContent", "simpleContent"):
                extension = next(_parts(child))
                if _tag(extension) != "extension":
                    raise SchemaError(f"type {reference}: <{_tag(extension)}> is not supported")
                base = document.qname(extension.attrib["base"])
                if tag == "complexContent":
                    base_attributes, base_particles, content, base_mixed = self.complex(base)
                    attributes += base_attributes
                    particles += base_particles
                    mixed = mixed or base_mixed
                else:
                    content = self.simple(base)
                for part in _parts(extension):
                    self._part(part, document, attributes, particles)
            else:
                self._part(child, document, attributes, particles)
        result = (sorted(attributes, key=lambda a: a[0]), particles, content, mixed)
        self._content[id(node)] = result
        return result

    def _part(
        self,
        node: ET.Element,
        document: Document,
        attributes: list[tuple[QName, list, bool]],
        particles: list[Particle],
    ) -> None:
        if _tag(node) == "attribute":
            qualified = document.root.get("attributeFormDefault") == "qualified"
            name = (node.attrib["name"], document.namespace if qualified else "")
            value = self.simple(document.qname(node.attrib["type"]))
            attributes.append((name, value, node.get("use") == "required"))
        else:
            particles.append(self._particle(node, document))

    def _particle(self, node: ET.Element, document: Document) -> Particle:
        minimum = int(node.get("minOccurs", "1"))
        text = node.get("maxOccurs", "1")
        maximum = UNBOUNDED if text == "unbounded" else int(text)
        if maximum > self.unroll:
            maximum = UNBOUNDED
        tag = _tag(node)
        if tag == "any":
            return Particle("any", minimum, maximum)
        if tag == "element":
            if "ref" in node.attrib:
                head = self.elements[document.qname(node.attrib["ref"])]
                members = self.substitutes(head)
                if len(members) == 1:
                    return Particle("element", minimum, maximum, head)
                return Particle("choice", minimum, maximum, children=[Particle("element", element=m) for m in members])
            element = self._element(node, document, False)
            self.local_elements.append(element)
            return Particle("element", minimum, maximum, element)
        if tag in ("sequence", "choice"):
            children = [self._particle(c, document) for c in _parts(node)]
            return Particle("seq" if tag == "sequence" else "choice", minimum, maximum, children=children)
        raise SchemaError(f"<{tag}> is not supported")


class Positions:
    """Glushkov's construction: which element of the content model may follow which."""

    def __init__(self) -> None:
        self.symbols: list[Element | None] = []  # None is the wildcard
        self.follow: list[set[int]] = []

    def build(self, particle: Particle) -> tuple[bool, set[int], set[int]]:
        """Return (nullable, first, last) of the particle with its occurrences unrolled."""
        pieces: list[tuple[bool, set[int], set[int]]] = []
        for _ in range(particle.minimum):
            pieces.append(self.once(particle))
        if particle.maximum == UNBOUNDED:
            _, first, last = self.once(particle)
            for position in last:
                self.follow[position] |= first
            pieces.append((True, first, last))
            return self.sequence(pieces)
        return self.sequence([*pieces, *self.optional(particle, particle.maximum - particle.minimum)])

    def optional(self, particle: Particle, count: int) -> list[tuple[bool, set[int], set[int]]]:
        """``count`` further occurrences, each possible only after the one before it."""
        if count <= 0:
            return []
        pieces = [self.once(particle) for _ in range(count)]
        _, first, last = pieces[-1]
        tail: tuple[bool, set[int], set[int]] = (True, first, last)
        for piece in reversed(pieces[:-1]):
            _, first, last = self.sequence([piece, tail])
            tail = (True, first, last)
        return [tail]

    def once(self, particle: Particle) -> tuple[bool, set[int], set[int]]:
        if particle.kind in ("element", "any"):
            position = len(self.symbols)
            self.symbols.append(particle.element)
            self.follow.append(set())
            return False, {position}, {position}
        pieces = [self.build(child) for child in particle.children]
        if particle.kind == "seq":
            return self.sequence(pieces)
        nullable = any(p[0] for p in pieces)
        return nullable, set().union(*(p[1] for p in pieces)), set().union(*(p[2] for p in pieces))

    def sequence(self, pieces: list[tuple[bool, set[int], set[int]]]) -> tuple[bool, set[int], set[int]]:
        nullable, first, last = True, set[int](), set[int]()
        for piece_nullable, piece_first, piece_last in pieces:
            for position in last:
                self.follow[position] |= piece_first
            if nullable:
                first = first | piece_first
            last = piece_last | last if piece_nullable else set(piece_last)
            nullable = nullable and piece_nullable
        return nullable, first, last


class Compiler:
    """Turns one schema set into the table which :mod:`.codec` loads."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.values: list[list] = []
        self.names: dict[str, int] = {}
        self.types: list[Any] = []
        self._type_index: dict[Any, int] = {}
        self._value_index: dict[str, int] = {}

    def value(self, coding: list) -> int:
        key = json.dumps(coding)
        if key not in self._value_index:
            self._value_index[key] = len(self.values)
            self.values.append(coding)
        return self._value_index[key]

    def content(self, element: Element) -> int:
        """What an element holds: a type's number, or ``-1 - value`` for a simple type."""
        if self.schema.is_simple(element.type):
            return -1 - self.value(self.schema.simple(element.type))
        definition = self.schema.node(element.type)
        assert definition is not None
        key = id(definition[0])
        if key not in self._type_index:
            self._type_index[key] = len(self.types)
            self.types.append(None)
            self.types[self._type_index[key]] = self.complex(element.type)
        return self._type_index[key]

    def complex(self, reference: Any) -> list:
        """The states of a complex type; each a list of productions [event, name, content, next, many].

        Events: "A" attribute, "S" start of element, "*" wildcard element, "E" end of element,
        "V" the typed value of simple content up to the element's end, "T" text in a relaxed grammar, "C"
        untyped characters.
        """
        attributes, particles, value, mixed = self.schema.complex(reference)
        positions = Positions()
        nullable, first, last = positions.build(Particle("seq", children=particles))
        table: list[list[list]] = []
        number: dict[Any, int] = {}
        pending: list[Any] = []

        def state(key: Any) -> int:
            if key not in number:
                number[key] = len(table)
                table.append([])
                pending.append(key)
            return number[key]

        def body(key: Any) -> list[list]:
            """Productions of the content after the start (key "first") or after some positions."""
            if value is not None:
                return [["V", "value", self.value(value), None]]
            following = first if key == "first" else set().union(*(positions.follow[p] for p in key))
            ends = nullable if key == "first" else any(p in last for p in key)
            grouped: dict[Any, list[int]] = {}
            for position in sorted(following):
                symbol = positions.symbols[position]
                grouped.setdefault(symbol.name if symbol else None, []).append(position)
            productions: list[list] = []
            wildcards: list[list] = []
            for members in grouped.values():
                symbol = positions.symbols[members[0]]
                target = state(frozenset(members))
                if symbol is None:
                    wildcards.append(["*", None, None, target])
                else:
                    productions.append(["S", symbol.name[0], self.content(symbol), target])
            productions += wildcards
            if ends:
                productions.append(["E", None, None, None])
            if mixed:
                productions.append(["C", None, None, state(key) if key != "first" else state(("text",))])
            return productions

        state(("attributes", 0))
        while pending:
            key = pending.pop(0)
            productions: list[list[Any]]
            if key == ("text",):
                productions = body("first")
            elif isinstance(key, tuple):
                productions = []
                start = key[1]
                for index in range(start, len(attributes)):
                    name, coding, required = attributes[index]
                    target = state(("attributes", index + 1))
                    production = ["A", name[0], self.value(coding), target]
                    productions.append(production)
                    if required:
                        break
                else:
                    productions += body("first")
            else:
                productions = body(key)
            table[number[key]] = productions
        return self.finish(table, {a[0][0] for a in attributes})

    def finish(self, table: list[list[list]], attributes: set[str]) -> list:
        """Merge states which behave alike and mark the elements that may repeat."""
        while True:
            seen: dict[str, int] = {}
            rename = {}
            for index, productions in enumerate(table):
                rename[index] = seen.setdefault(json.dumps(productions), index)
            if all(old == new for old, new in rename.items()):
                break
            for productions in table:
                for production in productions:
                    if production[3] is not None:
                        production[3] = rename[production[3]]
            keep = sorted(set(rename.values()))
            if len(keep) == len(table):
                break
            order = {old: new for new, old in enumerate(keep)}
            table = [table[old] for old in keep]
            for productions in table:
                for production in productions:
                    if production[3] is not None:
                        production[3] = order[production[3]]
        names = [p[1] for ps in table for p in ps if p[0] == "S"]
        if attributes & set(names):
            raise SchemaError("an attribute and an element share a name")
        repeated = self.repeated(table)
        for productions in table:
            for production in productions:
                if production[0] == "S" and production[1] in repeated:
                    production.append(1)
                while production and production[-1] is None:
                    production.pop()
        return table

    @staticmethod
    def repeated(table: list[list[list]]) -> set[str]:
        """Names of elements that can occur again after they have occurred."""
        reach = [{p[3] for p in ps if p[3] is not None} for ps in table]
        changed = True
        while changed:
            changed = False
            for index, targets in enumerate(reach):
                wider = targets.union(*(reach[t] for t in targets)) if targets else targets
                if wider != targets:
                    reach[index] = wider
                    changed = True
        names: set[str] = set()
        for productions in table:
            for production in productions:
                if production[0] == "S":
                    later = {production[3], *reach[production[3]]}
                    if any(q[0] == "S" and q[1] == production[1] for s in later for q in table[s]):
                        names.add(production[1])
        return names

    def relaxed(self, kinds: list[Element], width: int) -> list:
        """Content of an element whose name has several types: all attributes, all elements (EXI 8.5.3).

        Only the attributes and text of the types at hand are named; ``width`` counts the elements.
        """
        every: set[QName] = set()
        for reference in self.schema.types:
            if not self.schema.is_simple(reference):
                every |= {attribute[0] for attribute in self.schema.complex(reference)[0]}
        own: set[QName] = set()
        for kind in kinds:
            if not self.schema.is_simple(kind.type):
                own |= {attribute[0] for attribute in self.schema.complex(kind.type)[0]}
        string = self.value(["string"])
        names = sorted(every)
        chain = [index for index, name in enumerate(names) if name in own]
        content = len(chain) + 1
        states: list[list] = []
        for taken in range(len(chain) + 1):  # one state per attribute that has been seen
            attributes: list[list[Any]] = [["*"] for _ in range(len(names) + 1)]
            for step in range(taken, len(chain)):
                index = chain[step]
                attributes[index] = ["A", names[index][0], string, step + 1]
            elements: list[list] = [["*"] for _ in range(width + 1)]
            states.append([*attributes, *elements, ["E"], ["T", "value", string, content]])
        states.append([["*"] for _ in range(width + 1)] + [["E"], ["*"]])
        return states

    def compile(self) -> dict[str, Any]:
        schema = self.schema
        names = sorted(schema.elements)
        document = [[name[0], name[1], self.content(schema.elements[name])] for name in names]
        for reference in schema.types:  # types used by no element still declare elements
            if not schema.is_simple(reference):
                for particle in _elements(schema.complex(reference)[1]):
                    self.content(particle)
        by_name: dict[QName, dict[str, Element]] = {}
        for element in [*schema.elements.values(), *schema.local_elements]:
            key = str(element.type) if isinstance(element.type, tuple) else str(id(element.type))
            by_name.setdefault(element.name, {})[key] = element
        fragment = []
        for name in sorted(by_name):
            kinds = list(by_name[name].values())
            if len(kinds) == 1:
                content = self.content(kinds[0])
            else:
                content = len(self.types)
                self.types.append(self.relaxed(kinds, len(by_name)))
            fragment.append([name[0], name[1], content])
        return {"values": self.values, "types": self.types, "document": document, "fragment": fragment}


def _elements(particles: Iterable[Particle]) -> Iterator[Element]:
    for particle in particles:
        if particle.element is not None:
            yield particle.element
        yield from _elements(particle.children)


def schema_folder() -> Path:
    """Where the installed iso15118 package keeps its schemas (the package itself is not imported)."""
    from importlib.util import find_spec

    spec = find_spec("iso15118")
    if spec is None or spec.origin is None:
        raise SchemaError("the iso15118 package is not installed: it brings the schemas")
    return Path(spec.origin).parent / "shared" / "schemas"


def compile_set(name: str, library: Path | None = None) -> str:
    """Return the source of the grammar module of one schema set."""
    library = library or schema_folder()
    namespace, root = SCHEMA_SETS[name]
    schema = Schema(library / root, library, UNROLL_LIMITS.get(name, UNROLL_LIMIT))
    table = Compiler(schema).compile()

    def lines(items: list) -> str:
        return ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)

    text = ",\n".join(f'"{key}":[\n{lines(items)}\n]' for key, items in table.items())
    return (
        f'"""EXI grammars of {namespace}.\n\n'
        f'Generated by robot_charger.v2g.exi.compiler from {Path(root).name}; do not edit.\n"""\n'
        f'\nNAMESPACE = "{namespace}"\nTABLE = r"""{{\n{text}\n}}"""\n'
    )


def main() -> None:
    folder = Path(__file__).parent / "grammars"
    for name in SCHEMA_SETS:
        (folder / f"{name}.py").write_text(compile_set(name), encoding="utf-8")


if __name__ == "__main__":
    main()
