"""Show a message bit by bit: which bits say what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .codec import Tree, _State, decode_bits, grammar

Step = tuple[str, int, str]  # bits, depth of the element, what they mean


def trace(data: bytes, schema: str, fragment: bool = False) -> Iterator[Step]:
    """The steps of decoding ``data``; raises :class:`ExiDecodeError` like :func:`decode`.

    The message is decoded first; then its tree is walked along the bits.  Text that an encoder wrote in
    another way than ours appears with the bits that it really has.
    """
    tree, used = decode_bits(data, schema, fragment)
    bits = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b")
    rules = grammar(schema)
    roots = rules.fragment if fragment else rules.document
    ((name, value),) = tree.items()
    yield bits[:8], 0, "EXI header"
    position = 8 + roots.width
    yield bits[8:position], 0, f"{name}, one of {len(roots.reads)} elements"
    _, content, read = roots.reads[bits[8:position]]
    if read is None:
        position = yield from _element(bits, position, content, value, 1)
    else:
        position = yield from _text(bits, position, read, 1)
    if fragment:
        yield bits[position : position + roots.width], 0, "end of the fragment"
    if bits[used:]:
        yield bits[used:], 0, "padding" if len(bits) - used < 8 else "beyond the message"


def _element(bits: str, position: int, state: _State, tree: Tree, depth: int) -> Any:
    while True:
        start = position
        position += state.width
        name, content, read, many, after = state.reads[bits[start:position]]
        if name is None:
            yield bits[start:position], depth - 1, "end"
            return position
        value = tree[name]
        if many:
            tree = {**tree, name: value[1:]}
            value = value[0]
        if read is None:
            yield bits[start:position], depth, name
            position = yield from _element(bits, position, content, value, depth + 1)
        elif many is not None:
            yield bits[start:position], depth, name
            position = yield from _text(bits, position, read, depth + 1)
        else:
            _, end = read(bits, position)
            if after is None:
                yield bits[start:end], depth, f"text {value!r} and end"
            else:
                yield bits[start:position], depth, f"attribute {name}"
                yield bits[position:end], depth + 1, repr(value)
            position = end
        if after is None:
            return position
        state = after


def _text(bits: str, position: int, read: Any, depth: int) -> Any:
    """An element's value with the event codes around it."""
    value, end = read(bits, position)
    if bits[position] == "1":
        yield bits[position:end], depth, "end at once: empty"
    else:
        yield bits[position], depth, "text follows"
        yield bits[position + 1 : end - 1], depth, repr(value)
        yield bits[end - 1 : end], depth - 1, "end"
    return end
