"""Encode and decode V2G messages: bytes to a plain tree and back.

A tree is what ``json`` makes: a ``dict`` per element with attributes and child elements by local name, a
list where an element may repeat, ``int``, ``bool`` and ``str`` as values; base64Binary and hexBinary are
text in their XML form (``bytes`` are taken too).  The text of an element that also has attributes stands
under ``"value"``.  The outermost ``dict`` has one key, the message.

Event codes: a state with n productions uses ceil(log2(n + 1)) bits, because V2G is not strict EXI: one
more code leads to what the schema does not foresee.  No V2G message needs that, and here it is an error.
Values are written by :mod:`.values`; a value outside its range is refused when encoding and passed on
when decoding, so that the station answers such a message instead of dropping the connection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from .errors import ExiDecodeError, ExiEncodeError, ExiError
from .values import as_text, coding

Tree = dict[str, Any]

#: Distinguishing bits 10, no options, version 1 (EXI 1.0, section 5).
HEADER = 0x80

#: The first of the five or seven second-level codes behind the escape code: the element ends although
#: the schema wants text (8.5.4.4.1).
EARLY_END = "000"

APP_PROTOCOL = "app_protocol"
#: Schema sets by the name of their grammar module, in the order in which a guess tries them.
NAMESPACES = {
    APP_PROTOCOL: "urn:iso:15118:2:2010:AppProtocol",
    "iso15118_2": "urn:iso:15118:2:2013:MsgDef",
    "din70121": "urn:din:70121:2012:MsgDef",
    "iso15118_20_common": "urn:iso:std:iso:15118:-20:CommonMessages",
    "iso15118_20_dc": "urn:iso:std:iso:15118:-20:DC",
    "iso15118_20_ac": "urn:iso:std:iso:15118:-20:AC",
    "iso15118_20_acdp": "urn:iso:std:iso:15118:-20:ACDP",
    "iso15118_20_wpt": "urn:iso:std:iso:15118:-20:WPT",
    "xmldsig": "http://www.w3.org/2000/09/xmldsig#",
}
_NAMES = {namespace: name for name, namespace in NAMESPACES.items()}

#: Elements that are coded on their own, as fragments, to be signed (ISO 15118-2, 7.9.2.4.2 and
#: ISO 15118-20, 7.3.3).
SIGNED = {
    "iso15118_2": {
        "AuthorizationReq",
        "CertificateInstallationReq",
        "CertificateUpdateReq",
        "ContractSignatureCertChain",
        "ContractSignatureEncryptedPrivateKey",
        "DHpublickey",
        "MeteringReceiptReq",
        "SalesTariff",
        "SignedInfo",
        "eMAID",
    },
    "iso15118_20_common": {
        "AbsolutePriceSchedule",
        "OEMProvisioningCertificateChain",
        "PnC_AReqAuthorizationMode",
        "PriceLevelSchedule",
        "SignedInfo",
        "SignedInstallationData",
        "SignedMeteringData",
    },
    "xmldsig": {"SignedInfo"},
}

# A production that is read is (name, content, read, many, next state): content is the first state of a
# complex type, read the reader of a value; many is None for an attribute or text, else whether the
# element may repeat; name is None for the end of the element.  The next state is None where the value
# takes the element's end with it.  A production that is written is (name, event code, content, write,
# many, next state).


def _width(choices: int) -> int:
    return (choices - 1).bit_length()


def _end_code(productions: list[list]) -> str:
    """The event code for the end of an element among the productions of a state."""
    return format(productions.index(["E"]), f"0{_width(len(productions) + 1)}b")


class Grammar:
    """The grammars of one schema set, ready to run."""

    def __init__(self, name: str) -> None:
        table = json.loads(import_module(f".grammars.{name}", __package__).TABLE)
        self.name = name
        self._values = table["values"]
        self._codings = [coding(description) for description in table["values"]]
        # Text is the only thing that the schema allows in a simple element: codes of one bit.
        self._texts = [
            as_text(description, pair, "0", "1" + EARLY_END, "0")
            for description, pair in zip(self._values, self._codings, strict=True)
        ]
        self._types = [[_State() for _ in states] for states in table["types"]]
        for states, raw_states in zip(self._types, table["types"], strict=True):
            for state, productions in zip(states, raw_states, strict=True):
                self._fill(state, productions, states, raw_states)
        self.document = _Roots(self, table["document"], fragment=False)
        self.fragment = _Roots(self, table["fragment"], fragment=True)

    def _fill(self, state: _State, productions: list[list], states: list[_State], raw: list[list]) -> None:
        width = state.width = _width(len(productions) + 1)
        for code, production in enumerate(productions):
            bits = format(code, f"0{width}b")
            event, name, content, after, many = production + [None] * (5 - len(production))
            if event == "E":
                state.reads[bits] = (None, None, None, False, None)
                state.end = bits
            elif event == "S":
                target, (write, read) = self.content(content)
                state.reads[bits] = (name, target, read, bool(many), states[after])
                state.writes.append((name, bits, target, write, bool(many), states[after]))
            elif event in ("V", "T"):
                if event == "V":  # by the schema, text must come
                    escape = format(code + 1, f"0{width}b")
                    codes = bits, escape + EARLY_END, "0"
                else:
                    escape = _end_code(productions)
                    codes = bits, escape, _end_code(raw[after])
                write, read = as_text(self._values[content], self._codings[content], *codes)
                both = (name, None, _rewound(read, width), None, None)
                state.reads[bits] = state.reads[escape] = both
                state.writes.append((name, "", None, write, None, None))
                state.end = None
            elif event == "A":
                write, read = self._codings[content]
                state.reads[bits] = (name, None, read, None, states[after])
                state.writes.append((name, bits, None, write, None, states[after]))

        state.named = {production[0]: production for production in state.writes}

    def content(self, number: int) -> tuple[_State | None, tuple[Any, Any]]:
        """What an element holds: the first state of a complex type, or else (write, read) of a value."""
        if number < 0:
            return None, self._texts[-1 - number]
        return self._types[number][0], (None, None)


def _rewound(read: Any, width: int) -> Any:
    """A reader that starts before the event code which led to it."""
    return lambda bits, position: read(bits, position - width)


class _State:
    """One state of a content model: ``reads`` by event code, ``writes`` in the order of the schema."""

    __slots__ = ("end", "named", "reads", "width", "writes")

    def __init__(self) -> None:
        self.width = 0
        self.reads: dict[str, tuple] = {}
        self.writes: list[tuple] = []
        self.named: dict[str, tuple] = {}  # the same by name
        self.end: str | None = None


class _Roots:
    """The elements which may stand at the top of a document or fragment."""

    def __init__(self, grammar: Grammar, elements: list[list], fragment: bool) -> None:
        # One more code stands for any other element, and in a fragment one for its end.
        self.width = _width(len(elements) + (2 if fragment else 1))
        self.end = format(len(elements) + 1, f"0{self.width}b") if fragment else ""
        self.reads: dict[str, tuple] = {}
        self.writes: dict[str, tuple] = {}
        for code, (name, namespace, number) in enumerate(elements):
            bits = format(code, f"0{self.width}b")
            content, (write, read) = grammar.content(number)
            self.reads[bits] = (name, content, read)
            # The messages' own namespace wins where two schemas declare one name.
            if name not in self.writes or namespace == NAMESPACES[grammar.name]:
                self.writes[name] = (bits, content, write)
            self.writes[f"{{{namespace}}}{name}"] = (bits, content, write)


@cache
def grammar(schema: str) -> Grammar:
    """The grammar of a schema set, given its name (``iso15118_2``) or namespace; loaded once."""
    name = _NAMES.get(schema, schema)
    if name not in NAMESPACES:
        raise ExiError(f"unknown schema {schema!r}; known are {', '.join(NAMESPACES)}")
    return Grammar(name) if name == schema else grammar(name)


def _read(bits: str, position: int, state: _State) -> tuple[Tree, int]:
    """Read the content of one element.  Depth is bounded by the schemas, none of which nests itself."""
    tree: Tree = {}
    while True:
        width = state.width
        production = state.reads.get(bits[position : position + width])
        if production is None:
            raise ExiDecodeError(_unexpected(bits, position, state), position)
        position += width
        name, content, read, many, state = production
        if name is None:
            return tree, position
        try:
            if read is None:
                value, position = _read(bits, position, content)
            else:
                value, position = read(bits, position)
        except ExiError as error:
            error.within(name)
            raise
        if many:
            if name in tree:
                tree[name].append(value)
            else:
                tree[name] = [value]
        else:
            tree[name] = value
            if state is None:
                return tree, position


def _expected(state: _State) -> str:
    names = [production[0] for production in state.writes]
    if state.end is not None:
        names.append("the end")
    return " or ".join(names) or "nothing that is supported"


def _unexpected(bits: str, position: int, state: _State) -> str:
    if position + state.width > len(bits):
        return f"ends before {_expected(state)}"
    return f"event code {bits[position : position + state.width]} where {_expected(state)} is expected"


def _code(write: Any, value: Any) -> str:
    """The bits of one value; a list or dict, which cannot be looked up among those kept, is refused by the writer."""
    try:
        return str(write(value))
    except TypeError:
        return str(write.__wrapped__(value))


def _write(out: list[str], state: _State | None, tree: Any) -> None:
    """Append the bits of one element's content.

    A tree in the order of the schema is written in one pass. Another order, or a tree that does not fit, takes
    :func:`_write_in_any_order`, which writes the same bits or says what is wrong.
    """
    if type(tree) is not dict:
        raise ExiEncodeError(f"{tree!r} is not a dict of elements")
    start, at = len(out), state
    for name, value in tree.items():
        production = at.named.get(name) if at is not None else None
        if production is None or value is None or type(value) is list:
            break
        _, prefix, content, write, _, at = production
        out.append(prefix)
        try:
            if write is None:
                _write(out, content, value)
            else:
                out.append(write(value))
        except TypeError:
            break  # a value that cannot be looked up: a list, a dict
        except ExiError as error:
            error.within(name)
            raise
    else:
        if at is None:
            return
        if at.end is not None:
            out.append(at.end)
            return
    del out[start:]
    _write_in_any_order(out, state, tree)


def _write_in_any_order(out: list[str], state: _State | None, tree: Tree) -> None:
    done: dict[str, int] = {}  # name -> how many of them are written
    while state is not None:
        for name, prefix, content, write, many, after in state.writes:
            value = tree.get(name)
            if value is None:
                continue
            if many:
                if type(value) is not list:
                    value = [value]
                index = done.get(name, 0)
                if index == len(value):
                    continue
                value = value[index]
                done[name] = index + 1
            else:
                done[name] = 1
            out.append(prefix)
            try:
                if write is None:
                    _write(out, content, value)
                else:
                    out.append(_code(write, value))
            except ExiError as error:
                error.within(name)
                raise
            state = after
            break
        else:
            if state.end is None:
                raise ExiEncodeError(f"lacks {_expected(state)}")
            out.append(state.end)
            break
    if len(done) != len(tree) or max(done.values(), default=1) > 1:
        _refuse_leftovers(tree, done)


def _refuse_leftovers(tree: Tree, done: dict[str, int]) -> None:
    """Raise if anything was not written; ``None`` and an empty list count as absent."""
    for name, value in tree.items():
        count = len(value) if type(value) is list else value is not None
        if done.get(name, 0) < count:
            what = f"occurs {count} times: too often" if name in done else "is unknown or not allowed here"
            raise ExiEncodeError(what, name)


def encode(tree: Tree, schema: str, fragment: bool | None = None) -> bytes:
    """Encode ``{message: content}``; the message is named ``Name`` or, if need be, ``{namespace}Name``.

    ``schema`` is the name or the namespace of a schema set.  Without ``fragment``, an element that is
    signed is coded as a fragment and all others as documents.  Raises :class:`ExiEncodeError`.
    """
    rules = grammar(schema)
    if type(tree) is not dict or len(tree) != 1:
        raise ExiEncodeError("a message is a dict with one key, its name")
    ((name, value),) = tree.items()
    if fragment is None:
        fragment = name in SIGNED.get(rules.name, ())
    roots = rules.fragment if fragment else rules.document
    root = roots.writes.get(name)
    if root is None:
        raise ExiEncodeError(f"{rules.name} has no {'fragment' if fragment else 'message'} {name}")
    code, content, write = root
    out = ["10000000", code]
    try:
        if write is None:
            _write(out, content, value)
        else:
            out.append(_code(write, value))
    except ExiError as error:
        error.within(name)
        raise
    out.append(roots.end)
    bits = "".join(out)
    octets = -(-len(bits) // 8)
    return int(bits.ljust(8 * octets, "0"), 2).to_bytes(octets, "big")


def decode_bits(data: bytes, schema: str, fragment: bool = False) -> tuple[Tree, int]:
    """Decode one message; also return the number of bits it took."""
    rules = grammar(schema)
    roots = rules.fragment if fragment else rules.document
    if not data or data[0] != HEADER:
        raise ExiDecodeError("does not start with the EXI header 80", 0)
    bits = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b")
    position = 8 + roots.width
    root = roots.reads.get(bits[8:position])
    if root is None:
        raise ExiDecodeError(f"no message of {rules.name}", 8)
    name, content, read = root
    try:
        if read is None:
            value, position = _read(bits, position, content)
        else:
            value, position = read(bits, position)
    except ExiDecodeError as error:
        error.within(name)
        error.position = min(error.position, len(bits))
        raise
    if fragment:
        if bits[position : position + roots.width] != roots.end:
            raise ExiDecodeError("more than one element in the fragment", position)
        position += roots.width
    return {name: value}, position


def decode(data: bytes, schema: str, fragment: bool = False) -> Tree:
    """Decode one message of a schema set into ``{message: content}``.

    What follows the last event is ignored, as the padding is.  Raises :class:`ExiDecodeError`.
    """
    return decode_bits(data, schema, fragment)[0]


@dataclass
class Guess:
    """One way to read a message whose schema is not known."""

    schema: str
    fragment: bool
    tree: Tree
    spare_bits: int
    """Bits behind the message: fewer than 8 and all 0 is the usual padding."""


def guess(data: bytes) -> list[Guess]:
    """Every reading of ``data`` that a schema set allows, the likeliest first.

    Likeliest is what uses all bytes, then a document before a fragment, then the order of
    :data:`NAMESPACES`.  If there is none, raises the :class:`ExiDecodeError` that came latest in the data.
    """
    found: list[tuple[bool, Guess]] = []
    latest: ExiDecodeError | None = None
    for fragment in (False, True):
        for name in NAMESPACES:
            try:
                tree, used = decode_bits(data, name, fragment)
            except ExiDecodeError as error:
                if latest is None or error.position > latest.position:
                    latest = error
                continue
            spare = 8 * len(data) - used
            padded = spare < 8 and not data[-1] & ((1 << spare) - 1)
            found.append((not padded, Guess(name, fragment, tree, spare)))
    if not found:
        assert latest is not None
        raise latest
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]
