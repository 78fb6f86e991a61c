"""Random messages from the schemas, each as a tree for our codec and as XML for EXIficient.

The messages come from the schema components themselves, not from the compiled grammars, so that a mistake
in the grammars cannot hide.  Everything random comes from the ``random.Random`` that is passed in: a seeded
one in the bench, one driven by hypothesis in the tests.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any
from xml.sax.saxutils import escape

from robot_charger.v2g.exi.compiler import (
    SCHEMA_SETS,
    UNBOUNDED,
    Element,
    Particle,
    Schema,
    schema_folder,
)

ALPHABETS = [
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._:/#",
    "abc <>&'\"",
    " ",
    "äöüßéñ€ΩЖ中文字",
    "\x7f\x80\u07ff\u0800\uffee\U0001f600\U00010000\U0010fffd",
]
INTERESTING = [0, 1, 2, 63, 64, 127, 128, 129, 255, 256, 4095, 4096, 2**14 - 1, 2**14, 2**21, 2**31, 2**32]


class Impossible(Exception):
    """The schema asks here for an element that it does not define."""


@dataclass
class Message:
    schema: str
    fragment: bool
    name: str
    namespace: str
    content: Any
    xml: str

    def tree(self, qualified: bool = False) -> dict[str, Any]:
        """The tree; with a qualified name where the fragments of two schemas share a name."""
        return {f"{{{self.namespace}}}{self.name}" if qualified else self.name: self.content}


@cache
def schema(name: str) -> Schema:
    library = schema_folder()
    loaded = Schema(library / SCHEMA_SETS[name][1], library)
    for reference in list(loaded.types):  # so that the local elements are known
        if not loaded.is_simple(reference):
            loaded.complex(reference)
    return loaded


def root(name: str, fragment: bool, random: Random) -> Element:
    """An element to make a message of: half of them what is really sent, the rest everything else."""
    every = roots(name, fragment)
    sent = [e for e in every if e.name[0] == "V2G_Message"]
    sent = sent or [e for e in every if e.name[0].endswith(("Req", "Res"))]
    return random.choice(sent if sent and random.random() < 0.5 else every)


def is_abstract(known: Schema, element: Element) -> bool:
    definition = known.node(element.type)
    return element.abstract or (definition is not None and definition[0].get("abstract") == "true")


@cache
def roots(name: str, fragment: bool = False) -> list[Element]:
    """The elements of a schema set that may be messages, or fragments."""
    known = schema(name)
    elements = [known.elements[q] for q in sorted(known.elements)]
    if fragment:
        local = {element.name: element for element in known.local_elements}
        # As a fragment, an element of several types is coded loosely: take the type that is signed.
        local |= {e.name: e for e in known.local_elements if not known.is_simple(e.type)}
        elements += [local[q] for q in sorted(local) if q not in known.elements]
    return [element for element in elements if not is_abstract(known, element)]


def max_length(known: Schema, reference: Any) -> int | None:
    """The length facet of a simple type."""
    while (definition := known.node(reference)) is not None:
        restriction = next(iter(definition[0]))
        for facet in restriction:
            if str(facet.tag).rpartition("}")[2] in ("maxLength", "length"):
                return int(facet.attrib["value"])
        base = restriction.attrib.get("base")
        if base is None:
            return None
        reference = definition[1].qname(base)
    return None


class Generator:
    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self.known = schema(name)
        self.random = random
        # How eager this message is to take what is optional, and how long its lists are.
        self.eagerness = random.choice([0.0, 0.3, 0.6, 1.0])
        self.full = random.random() < 0.15
        self.budget = 400  # elements
        self.turns: dict[tuple[int, int], int] = {}
        self.kept: list[Any] = []  # trees, so that their ids stay theirs

    def message(self, root: Element, fragment: bool) -> Message:
        value, xml = self.element(root)
        name, namespace = root.name
        return Message(self.name, fragment, name, namespace, value, xml)

    def element(self, element: Element) -> tuple[Any, str]:
        self.budget -= 1
        name, namespace = element.name
        if self.known.is_simple(element.type):
            value, text = self.value(self.known.simple(element.type), max_length(self.known, element.type))
            return value, f'<{name} xmlns="{namespace}">{text}</{name}>'
        attributes, particles, content, _ = self.known.complex(element.type)
        tree: dict[str, Any] = {}
        self.kept.append(tree)
        start = f'<{name} xmlns="{namespace}"'
        for (attribute, attribute_namespace), coding, required in attributes:
            if required or self.random.random() < self.eagerness:
                tree[attribute], text = self.value(coding, None)
                text = text.replace('"', "&quot;")
                if attribute_namespace:
                    start += f' a:{attribute}="{text}" xmlns:a="{attribute_namespace}"'
                else:
                    start += f' {attribute}="{text}"'
        if content is not None:
            tree["value"], text = self.value(content, None)
            return tree, f"{start}>{text}</{name}>"
        return tree, start + ">" + self.particles(particles, tree, False) + f"</{name}>"

    def particles(self, particles: list[Particle], tree: dict[str, Any], many: bool) -> str:
        return "".join(self.particle(particle, tree, many) for particle in particles)

    def particle(self, particle: Particle, tree: dict[str, Any], many: bool) -> str:
        """XML of one particle, its values added to the tree of the enclosing element."""
        if particle.kind == "any":
            if particle.minimum:
                raise Impossible(particle)
            return ""
        count = self.occurrences(particle)
        many = many or particle.maximum != 1
        xml = ""
        for _ in range(count):
            if particle.kind == "choice":
                xml += self.particle(self.branch(particle, tree, many), tree, many)
            elif particle.kind == "seq":
                xml += self.particles(particle.children, tree, many)
            else:
                assert particle.element is not None
                value, text = self.element(particle.element)
                xml += text
                name = particle.element.name[0]
                if many:
                    tree.setdefault(name, []).append(value)
                else:
                    assert name not in tree, name
                    tree[name] = value
        return xml

    def occurrences(self, particle: Particle) -> int:
        least = particle.minimum
        if self.budget <= 0:
            return least
        if particle.maximum == 1:
            return 1 if least or self.random.random() < self.eagerness else 0
        most = least + 6 if particle.maximum == UNBOUNDED else particle.maximum
        if self.full:
            return self.random.choice([most, self.random.randint(least, most)])
        if least and self.random.random() >= self.eagerness:
            return least
        return self.random.randint(least, min(most, least + 3))

    def branch(self, particle: Particle, tree: dict[str, Any], many: bool) -> Particle:
        """One way through a choice.

        Where a choice repeats, the tree keeps no order among different names; encoders take them in the
        order of the schema, so a later turn takes no earlier branch.
        """
        branches = [
            child
            for child in particle.children
            if child.kind != "any" and not (child.element and is_abstract(self.known, child.element))
        ]
        if not branches:
            raise Impossible(particle)
        key = id(tree), id(particle)
        first = self.turns.get(key, 0) if many else 0
        index = self.random.choice([first, self.random.randrange(first, len(branches))])
        if not many:
            index = self.random.randrange(len(branches))
        self.turns[key] = index
        return branches[index]

    def value(self, coding: list, limit: int | None) -> tuple[Any, str]:
        """A value as in a tree and as in XML."""
        random = self.random
        kind = coding[0]
        if kind == "bool":
            value = random.random() < 0.5
            return value, "true" if value else "false"
        if kind == "enum":
            value = random.choice(coding[1])
            return value, escape(value)
        if kind in ("nbit", "uint", "int"):
            number = self.integer(coding[1], coding[2])
            return number, str(number)
        if kind in ("base64", "hex"):
            limit = limit or random.choice([20, 300])
            octets = random.randbytes(random.choice([0, 1, limit, random.randint(0, limit)]))
            if kind == "hex":
                return octets.hex().upper(), octets.hex().upper()
            text = base64.b64encode(octets).decode()
            return text, text
        limit = min(limit or 200, 300)
        length = random.choice([0, 1, limit, random.randint(0, limit)])
        alphabet = random.choice(ALPHABETS)
        text = "".join(random.choice(alphabet) for _ in range(length))
        return text, escape(text)

    def integer(self, low: int | None, high: int | None) -> int:
        low = -(2**159) if low is None else low
        high = 2**159 if high is None else high
        random = self.random
        choices = [low, high, random.randint(low, high)]
        choices += [n for i in INTERESTING for n in (i, -i, -i - 1) if low <= n <= high]
        return random.choice(choices)
