"""The plain parts: framing, discovery messages, announced limits, and the numbers shared with the messages."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Code
from robot_charger.common.parameters import build
from robot_charger.v2g import v2gtp
from robot_charger.v2g.bridge import Bridge, Station
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.v2g.record import HIDDEN, Entry, Recorder
from robot_charger.v2g.session import Outcome
from robot_charger.v2g.v2gtp import SdpRequest, SdpResponse, V2gtpError
from robot_charger.v2g.worker import Worker
from robot_charger.words.values import Link, Purpose


@given(st.booleans(), st.booleans(), st.binary(max_size=20))
def test_sdp_request_round_trip(tls: bool, wireless: bool, pairing: bytes) -> None:
    request = SdpRequest(tls, wireless, pairing if wireless else b"")
    assert SdpRequest.decode(request.encode()) == request


@given(st.ip_addresses(v=6), st.integers(0, 65_535), st.booleans())
def test_sdp_response_round_trip(address: ipaddress.IPv6Address, port: int, tls: bool) -> None:
    response = SdpResponse(str(address), port, tls)
    assert SdpResponse.decode(response.encode()) == response


@given(st.binary(max_size=40))
def test_any_datagram_is_survived(data: bytes) -> None:
    for kind in (SdpRequest, SdpResponse):
        with contextlib.suppress(V2gtpError):
            kind.decode(data)


def test_a_v2gtp_header_that_promises_too_much() -> None:
    with pytest.raises(V2gtpError, match="longer"):
        v2gtp.payload_length(b"\x01\xfe\x80\x01\xff\xff\xff\xff")
    with pytest.raises(V2gtpError, match="01fe"):
        v2gtp.payload_length(b"\x02\xfd\x80\x01\0\0\0\0")


SUPPLY = Station(supply_available=True, max_voltage_v=1000.0, max_current_a=300.0, max_power_w=150_000.0)


def test_the_smallest_of_supply_permit_and_back_end_is_announced() -> None:
    from dataclasses import replace

    assert SUPPLY.announced() == (1000.0, 300.0, 150_000.0)
    limited = replace(SUPPLY, backend_max_power_w=50_000.0)
    assert limited.announced() == (1000.0, 300.0, 50_000.0)
    precharge = replace(limited, permit_purpose=Purpose.PRECHARGE, permit_max_current_a=2.0)
    assert precharge.announced()[1] == 300.0  # what precharge may draw is no limit of the transfer
    transfer = replace(
        limited,
        permit_purpose=Purpose.TRANSFER,
        permit_max_current_a=80.0,
        permit_max_power_w=60_000.0,
        permit_max_voltage_v=500.0,
    )
    assert transfer.announced() == (500.0, 80.0, 50_000.0)
    assert replace(SUPPLY, supply_available=False).announced()[1:] == (0.0, 0.0)
    assert SUPPLY.backend_max_power_w == math.inf


def test_export_is_announced_only_where_permitted() -> None:
    from dataclasses import replace

    able = replace(SUPPLY, max_export_current_a=50.0, max_export_power_w=20_000.0)
    assert able.announced_export() == (50.0, 20_000.0)
    refused = replace(able, permit_purpose=Purpose.TRANSFER)
    assert refused.announced_export() == (0.0, 0.0)
    allowed = replace(refused, permit_min_current_a=-30.0, permit_min_power_w=-9_000.0)
    assert allowed.announced_export() == (30.0, 9_000.0)


def test_a_silent_supervisor_stops_the_transfer() -> None:
    assert Station().stopping
    assert not Station(session_stamp_ns=now_ns()).stopping


def test_changes_that_matter_are_told_at_once() -> None:
    both = Bridge()
    targets, links = [], []
    both.on_target, both.on_link = targets.append, links.append
    both.say(messages_in=1, stamp_ns=5)
    assert not targets and not links
    both.say(current_a=5.0)
    assert [t.current_a for t in targets] == [5.0] and not links
    both.say(phase=Link.CHARGING)
    assert len(targets) == 1 and [link.phase for link in links] == [7]


SETUP = {"V2G_Message": {"Header": {"SessionID": "00"}, "Body": {"SessionSetupReq": {"EVCCID": "AABBCCDDEEFF"}}}}


@pytest.mark.parametrize("identity", [False, True])
def test_the_record_hides_who_it_is(identity: bool) -> None:
    recorder = Recorder(identity)
    for name, tree in (("SessionSetupReq", SETUP), ("AuthorizationSetupReq", {"AuthorizationSetupReq": {}})):
        entry = Entry("in", 0x8001, b"\x80\x01", now_ns())
        entry.finish(name, tree)
        recorder.put(entry)
    first, second = (json.loads(line) for line in recorder.lines())
    hidden = "AABBCCDDEEFF" if identity else HIDDEN
    assert first["fields"]["Body"]["SessionSetupReq"]["EVCCID"] == hidden
    assert (first["exi"], second["exi"]) == ("8001" if identity else HIDDEN, "8001")
    assert first["payload_type"] == "0x8001"
    assert not list(recorder.lines())


def test_what_cannot_be_decoded_stays_in_the_record_with_its_field() -> None:
    recorder = Recorder()
    entry = Entry("in", 0x8001, b"\x80\x9a", now_ns())
    recorder.put(entry)
    assert not list(recorder.lines())  # put aside before it is decoded
    entry.finish("CurrentDemandReq", None, fault="CurrentDemandReq/EVTargetVoltage could not be decoded")
    (line,) = (json.loads(text) for text in recorder.lines())
    assert (line["name"], line["fields"], line["exi"]) == ("CurrentDemandReq", None, "809a")
    assert "EVTargetVoltage" in line["fault"]


def test_a_message_whose_answer_never_came_is_recorded_all_the_same() -> None:
    recorder = Recorder(identity=True)
    recorder.put(Entry("in", 0x8001, b"\x80\x9a", now_ns() - 2 * 10**9))
    assert [json.loads(line)["exi"] for line in recorder.lines()] == ["809a"]


@pytest.mark.parametrize(
    "code, carrier, told",
    [
        (Code.V2G_SILENT, True, Code.V2G_SILENT),
        (Code.V2G_SILENT, False, Code.LINK_LOST),
        (Code.V2G_TIMEOUT, False, Code.LINK_LOST),
        (Code.V2G_SEQUENCE, False, Code.V2G_SEQUENCE),
    ],
)
def test_a_silence_without_a_carrier_is_a_lost_link(code: Code, carrier: bool, told: Code) -> None:
    bridge = Bridge()
    worker = Worker("1", None, build(V2gParameters, {}), bridge)  # type: ignore[arg-type]
    worker.conclude(Outcome(True, False, False, code, "as it was"), carrier)
    assert (bridge.vehicle.phase, bridge.vehicle.error) == (Link.FAILED, told)
