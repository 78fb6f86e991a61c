"""The EXI codec on its own: known messages, the shape of trees, errors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from robot_charger.sim.exi_adapter import ExiCodec
from robot_charger.v2g.exi import ExiDecodeError, ExiEncodeError, decode, encode, guess
from robot_charger.v2g.exi.cli import exi
from robot_charger.v2g.exi.trace import trace

HEADER = {"SessionID": "C08CDF36985A7190"}


def iso2(body):
    return {"V2G_Message": {"Header": HEADER, "Body": body}}


# Bytes made by EXIficient 1.55 of the iso15118 package.
KNOWN = [
    (
        "iso15118_2",
        iso2({"SessionSetupReq": {"EVCCID": "0123456789AB"}}),
        "809802302337cda6169c6411d018048d159e26ac00",
    ),
    ("iso15118_2", iso2({}), "809802302337cda6169c641230"),
    ("iso15118_2", iso2({"AuthorizationReq": {}}), "809802302337cda6169c641008"),
    ("iso15118_2", {"eMAID": {"Id": "id4", "value": "DEABC"}}, "80ec0202b4b21a4001d111505090fd3d00"),
    ("iso15118_2", {"eMAID": {"Id": ">", "value": ""}}, "80ec02019f3ffd00"),
    ("iso15118_2", {"AuthorizationReq": {"Id": "id1"}}, "8004015a590c5f40"),
]


@pytest.mark.parametrize(("schema", "tree", "octets"), KNOWN)
def test_known_message(schema, tree, octets):
    fragment = "V2G_Message" not in tree
    assert encode(tree, schema).hex() == octets
    assert decode(bytes.fromhex(octets), schema, fragment) == tree


def test_codec_speaks_json():
    codec = ExiCodec()
    namespace = "urn:iso:15118:2:2013:MsgDef"
    text = '{"V2G_Message": {"Header": {"SessionID": "00"}, "Body": {}}}'
    assert codec.decode(codec.encode(text, namespace), namespace) == text


def test_encoding_names_the_element_at_fault():
    with pytest.raises(ExiEncodeError, match="V2G_Message/Body/SessionSetupReq: lacks EVCCID"):
        encode(iso2({"SessionSetupReq": {}}), "iso15118_2")
    with pytest.raises(ExiEncodeError, match="SessionSetupReq/Colour: is unknown"):
        encode(iso2({"SessionSetupReq": {"EVCCID": "00", "Colour": "red"}}), "iso15118_2")


def test_decoding_names_the_bit():
    with pytest.raises(ExiDecodeError, match="bit 0") as caught:
        decode(b"\x00", "iso15118_2")
    assert caught.value.position == 0
    with pytest.raises(ExiDecodeError) as caught:
        decode(bytes.fromhex("809802302337"), "iso15118_2")
    assert caught.value.path == "V2G_Message/Header/SessionID"


@pytest.mark.parametrize("text", ["", "x", "ü€\U0001f600", "a b"])
def test_text(text):
    tree = {"AuthorizationReq": {"Id": text}}
    assert decode(encode(tree, "iso15118_2"), "iso15118_2", fragment=True) == tree


def test_an_empty_value_is_an_early_end():
    """EXIficient has no characters to write there and takes the way that the schema does not foresee."""
    data = encode(iso2({"SessionSetupReq": {"EVCCID": ""}}), "iso15118_2")
    assert data.hex() == "809802302337cda6169c6411d400"
    assert decode(data, "iso15118_2") == iso2({"SessionSetupReq": {"EVCCID": ""}})


def test_bytes_are_taken_for_binary_values():
    tree = iso2({"SessionSetupReq": {"EVCCID": bytes.fromhex("0123456789ab")}})
    assert encode(tree, "iso15118_2").hex() == KNOWN[0][2]


def test_none_and_empty_lists_are_absent():
    content = {"ResponseCode": "Failed_NoNegotiation"}
    data = encode({"supportedAppProtocolRes": {**content, "SchemaID": None}}, "app_protocol")
    assert decode(data, "app_protocol") == {"supportedAppProtocolRes": content}
    with pytest.raises(ExiEncodeError, match="lacks AppProtocol"):
        encode({"supportedAppProtocolReq": {"AppProtocol": []}}, "app_protocol")


BAD_VALUES = [
    ({"ResponseCode": "Perhaps"}, "'Perhaps' is none of OK_SuccessfulNegotiation"),
    ({"ResponseCode": "Failed_NoNegotiation", "SchemaID": 256}, "SchemaID: 256 is outside 0..255"),
    ({"ResponseCode": "Failed_NoNegotiation", "SchemaID": "1"}, "SchemaID: '1' is not an integer"),
    ({"ResponseCode": "Failed_NoNegotiation", "SchemaID": True}, "SchemaID: True is not an integer"),
    ("Failed_NoNegotiation", "is not a dict"),
]


@pytest.mark.parametrize(("content", "message"), BAD_VALUES)
def test_bad_value(content, message):
    with pytest.raises(ExiEncodeError, match=message):
        encode({"supportedAppProtocolRes": content}, "app_protocol")


def test_too_many():
    protocol = {
        "ProtocolNamespace": "urn:x",
        "VersionNumberMajor": 1,
        "VersionNumberMinor": 0,
        "SchemaID": 1,
        "Priority": 1,
    }
    assert encode({"supportedAppProtocolReq": {"AppProtocol": [protocol] * 20}}, "app_protocol")
    with pytest.raises(ExiEncodeError, match="AppProtocol: occurs 21 times"):
        encode({"supportedAppProtocolReq": {"AppProtocol": [protocol] * 21}}, "app_protocol")


def test_acdp():
    """The package's codec has no way to these messages."""
    tree = {
        "ACDP_VehiclePositioningRes": {
            "Header": {"SessionID": "C08CDF36985A7190", "TimeStamp": 1795378551},
            "ResponseCode": "OK",
            "EVSEProcessing": "Ongoing",
            "EVSEPositioningSupport": True,
            "EVRelativeXDeviation": -120,
            "EVRelativeYDeviation": 35,
            "ContactWindowXc": 100,
            "ContactWindowYc": 100,
            "EVInChargePosition": False,
        }
    }
    codec = ExiCodec()
    namespace = "urn:iso:std:iso:15118:-20:ACDP"
    assert json.loads(codec.decode(codec.encode(json.dumps(tree), namespace), namespace)) == tree


def test_guess_finds_schema_and_fragment():
    for schema, tree, octets in KNOWN:
        best = guess(bytes.fromhex(octets))[0]
        assert (best.schema, best.tree) == (schema, tree)
    with pytest.raises(ExiDecodeError):
        guess(b"\x80\xff\xff")


@pytest.mark.parametrize(("schema", "tree", "octets"), KNOWN)
def test_trace_accounts_for_every_bit(schema, tree, octets):
    steps = list(trace(bytes.fromhex(octets), schema, "V2G_Message" not in tree))
    assert "".join(bits for bits, _, _ in steps) == format(int(octets, 16), f"0{4 * len(octets)}b")


def test_command_line():
    octets = KNOWN[0][2]
    result = CliRunner().invoke(exi, ["decode", f"01fe8001{len(octets) // 2:08x}{octets}"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == KNOWN[0][1]
    encoded = CliRunner().invoke(exi, ["encode", "--schema", "iso15118_2"], input=result.stdout)
    assert encoded.stdout.strip() == octets
    assert CliRunner().invoke(exi, ["decode", "--bits", octets]).stdout.startswith("10000000  EXI header\n")
    assert CliRunner().invoke(exi, ["decode", "80ff"]).exit_code == 1
    assert CliRunner().invoke(exi, ["decode", "nonsense"]).exit_code == 2


LOAD = """
import time
start = time.process_time()
from robot_charger.v2g.exi import codec
for name in codec.NAMESPACES:
    codec.grammar(name)
print(time.process_time() - start)
"""


def test_loading_is_quick():
    """All grammars in 150 ms of processor, import included; no schema is parsed, no Java, no XML."""
    seconds = min(float(subprocess.check_output([sys.executable, "-c", LOAD])) for _ in range(3))
    assert seconds < 0.15
    modules = f"{LOAD}\nimport sys\nassert not {{'xml', 'py4j', 'iso15118'}} & sys.modules.keys()"
    subprocess.check_call([sys.executable, "-c", modules])


def test_the_message_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "exi.md").read_text(encoding="utf-8")
    octets = re.search(r"exi decode ([0-9a-f]+)", page).group(1)
    shown = page.split("```text\n")[1].split("```")[0]
    steps = trace(bytes.fromhex(octets), "iso15118_2")
    assert shown == "".join(f"{'  ' * depth}{bits}  {meaning}\n" for bits, depth, meaning in steps)
