"""``robot-charger exi``: look at EXI messages, for people with a capture in hand."""

from __future__ import annotations

import json
import sys
from typing import TextIO

import click

from . import codec
from .errors import ExiError
from .trace import trace

#: V2GTP: version 1, its complement, payload type, payload length (ISO 15118-2, table 9).
V2GTP = bytes.fromhex("01fe")


def octets(text: str) -> bytes:
    """Bytes from hex text as tools print it: spaces, colons, 0x and a V2GTP header are taken off."""
    text = text.replace("0x", "").replace(":", "")
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter("not hexadecimal") from None
    if data.startswith(V2GTP) and len(data) > 8:
        length = int.from_bytes(data[4:8], "big")
        return data[8 : 8 + length]
    return data


@click.group()
def exi() -> None:
    """Decode and encode the EXI messages of DIN 70121, ISO 15118-2 and ISO 15118-20."""


@exi.command()
@click.argument("hex_text", metavar="HEX")
@click.option("--schema", help=f"Do not guess: one of {', '.join(codec.NAMESPACES)}, or a namespace.")
@click.option("--fragment", is_flag=True, help="A signed element instead of a message (with --schema).")
@click.option("--bits", is_flag=True, help="Show what each bit says.")
def decode(hex_text: str, schema: str | None, fragment: bool, bits: bool) -> None:
    """Print the message in HEX (- reads it from standard input) as JSON."""
    data = octets(sys.stdin.read().strip() if hex_text == "-" else hex_text)
    try:
        if schema is None:
            guesses = codec.guess(data)
        else:
            tree, used = codec.decode_bits(data, schema, fragment)
            guesses = [codec.Guess(schema, fragment, tree, 8 * len(data) - used)]
    except ExiError as error:
        raise click.ClickException(str(error)) from error
    best, *others = guesses
    click.echo(f"{best.schema}{', fragment' if best.fragment else ''}", err=True)
    if best.spare_bits >= 8:
        click.echo(f"{best.spare_bits // 8} bytes follow the message", err=True)
    elif not best.fragment:
        also = [f"{other.schema} ({next(iter(other.tree))})" for other in others if other.spare_bits < 8]
        if also:
            click.echo(f"could also be {', '.join(also)}", err=True)
    if bits:
        for piece, depth, meaning in trace(data, best.schema, best.fragment):
            click.echo(f"{'  ' * depth}{piece}  {meaning}")
    else:
        click.echo(json.dumps(best.tree, indent=2, ensure_ascii=False))


@exi.command()
@click.argument("source", type=click.File("r"), metavar="JSON", default="-")
@click.option("--schema", required=True, help=f"One of {', '.join(codec.NAMESPACES)}, or a namespace.")
@click.option("--fragment/--document", default=None, help="Default: as the element is used.")
def encode(source: TextIO, schema: str, fragment: bool | None) -> None:
    """Print the bytes, in hex, of a message in a JSON file (default: standard input)."""
    try:
        tree = json.load(source)
    except ValueError as error:
        raise click.ClickException(f"not JSON: {error}") from error
    try:
        click.echo(codec.encode(tree, schema, fragment).hex())
    except ExiError as error:
        raise click.ClickException(str(error)) from error
