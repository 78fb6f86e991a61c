"""The EXI codec on its own: known messages, the shape of trees, errors."""

import pytest

from robot_charger.v2g.exi import ExiDecodeError, ExiEncodeError, decode, encode
from robot_charger.v2g.exi.adapter import ExiCodec

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
