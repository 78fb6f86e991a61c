"""Requests that a well-behaved vehicle does not send get their response: against the simulated vehicle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from talk import talk

from robot_charger.common.faults import Code
from robot_charger.sim import package
from robot_charger.v2g.exi import decode, encode
from robot_charger.v2g.secc import shared
from robot_charger.words.values import Link

package.prepare()
with package.quiet_import():
    from robot_charger.sim import evcc_early


async def put_request(session: Any, way: str, name: str) -> None:
    """A request of ISO 15118-20 by its name ``way``."""
    from iso15118.shared.exi_codec import EXI
    from iso15118.shared.messages.enums import ISOV20PayloadTypes, Namespace
    from iso15118.shared.messages.iso15118_20 import common_messages as m
    from iso15118.shared.messages.iso15118_20.common_types import MessageHeader
    from iso15118.shared.messages.v2gtp import V2GTPMessage

    header = MessageHeader(session_id=session.session_id, timestamp=int(time.time()))
    if way == "ServiceDetailReq":
        request: Any = m.ServiceDetailReq(header=header, service_id=2)
    else:
        wishes = await session.ev_controller.get_scheduled_se_params(None)
        request = m.ScheduleExchangeReq(header=header, max_supporting_points=12, scheduled_params=wishes)
    payload = EXI().to_exi(request, Namespace.ISO_V20_COMMON_MSG)
    state = session.current_state
    state.message = request
    state.next_v2gtp_msg = V2GTPMessage(session.protocol, ISOV20PayloadTypes.MAINSTREAM, payload)


@pytest.mark.parametrize("request_name", ["ServiceDetailReq", "ScheduleExchangeReq"])
def test_requests_of_20_out_of_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_name: str) -> None:
    monkeypatch.setattr(evcc_early, "put", put_request)
    options = {"leave_at": "AuthorizationSetupReq", "leave_by": request_name}
    told = talk(tmp_path, protocol="iso15118-20", options=options)
    assert (told.names[-1], told.codes[-1]) == (request_name.replace("Req", "Res"), "FAILED_SequenceError")
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE), told.link.text


def test_no_protocol_in_common(tmp_path: Path) -> None:
    told = talk(tmp_path, parameters={"protocols": ["din70121"]})
    assert told.codes == ["Failed_NoNegotiation"]
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE)
    assert told.link.text == "supportedAppProtocolReq was refused: Failed_NoNegotiation"


@pytest.mark.parametrize("protocol", ["din", "iso15118-2", "iso15118-20"])
def test_an_authorisation_that_does_not_come(tmp_path: Path, protocol: str) -> None:
    """Answered "ongoing" for ``authorization_timeout_s``, then refused."""
    parameters = {"authorization_timeout_s": 1.0}
    told = talk(tmp_path, protocol=protocol, parameters=parameters, station={"authorization": "never"})
    assert not told.ok and told.codes[-1] == "FAILED"
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.AUTHORIZATION)
    assert told.link.text == "no authorisation within the time allowed"
    name = "ContractAuthenticationRes" if protocol == "din" else "AuthorizationRes"
    assert told.names.count(name) > 3 and "CABLE_CHECK" not in told.phases


async def go_on(session: Any, way: str, name: str) -> None:
    """A vehicle of -20 that does not care for the refusal, and asks for the services."""
    from iso15118.evcc.states import iso15118_20_states
    from iso15118.shared.messages.enums import ISOV20PayloadTypes, Namespace
    from iso15118.shared.messages.iso15118_20 import common_messages as m
    from iso15118.shared.messages.iso15118_20.common_types import MessageHeader

    header = MessageHeader(session_id=session.session_id, timestamp=int(time.time()))
    await session.send(session.current_state.next_v2gtp_msg)  # AuthorizationReq
    await session._read()
    request = m.ServiceDiscoveryReq(header=header)
    rest = (2.0, Namespace.ISO_V20_COMMON_MSG, ISOV20PayloadTypes.MAINSTREAM)
    session.current_state.create_next_message(iso15118_20_states.ServiceDiscovery, request, *rest)


def test_no_services_after_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evcc_early, "put", go_on)
    told = talk(
        tmp_path,
        protocol="iso15118-20",
        options={"leave_at": "AuthorizationReq"},
        station={"authorization": "refused"},
    )
    assert told.names[-1] == "AuthorizationRes" and told.codes[-1] == "FAILED"
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.AUTHORIZATION)


@pytest.mark.parametrize("protocol", ["din", "iso15118-2", "iso15118-20"])
def test_who_the_vehicle_is_for_autocharge(tmp_path: Path, protocol: str) -> None:
    told = talk(tmp_path, protocol=protocol, parameters={"privacy.publish_identity": True})
    assert told.link.identity == ("WMIV1234567890ABCDEX" if protocol == "iso15118-20" else "02EC000000E1")
    assert not told.link.contract
    assert talk(tmp_path, protocol=protocol).link.identity == ""


async def leave_parameter_out(session: Any, way: str, name: str) -> None:
    from iso15118.shared.messages.v2gtp import V2GTPMessage

    message = session.current_state.next_v2gtp_msg
    namespace = session.get_exi_ns(message.payload_type)
    tree = decode(message.payload, namespace)
    del tree["V2G_Message"]["Body"]["PowerDeliveryReq"]["DC_EVPowerDeliveryParameter"]
    octets = encode(tree, namespace)
    session.current_state.next_v2gtp_msg = V2GTPMessage(session.protocol, message.payload_type, octets)


@pytest.mark.parametrize("at", ["PowerDeliveryReq", "PowerDeliveryReq*2"])
@pytest.mark.parametrize("protocol", ["din", "iso15118-2"])
def test_a_vehicle_that_leaves_the_power_delivery_parameter_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, at: str
) -> None:
    monkeypatch.setattr(evcc_early, "put", leave_parameter_out)
    told = talk(tmp_path, protocol=protocol, options={"leave_at": at})
    assert (told.ok, told.link.phase, told.link.error) == (True, Link.ENDED, Code.NONE), told.link.text
    assert told.link.soc == 40.0


@pytest.mark.parametrize("protocol", ["din", "iso15118-2", "iso15118-20"])
def test_what_raises_while_answering_is_answered_with_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    def broken(*arguments: Any) -> str:
        raise RuntimeError("of the test")

    monkeypatch.setattr(shared, "set_up", broken)
    told = talk(tmp_path, protocol=protocol)
    assert (told.names[-1], told.codes[-1]) == ("SessionSetupRes", "FAILED")
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_INTERNAL)
    assert told.link.text == "RuntimeError while answering SessionSetupReq"
