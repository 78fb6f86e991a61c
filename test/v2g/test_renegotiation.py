"""What may be drawn changes while energy flows: by the limits of the charge loop, and by negotiating anew."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from talk import talk

from robot_charger.common.faults import Code
from robot_charger.sim import package
from robot_charger.v2g import pki, v2gtp
from robot_charger.words.values import Link

package.prepare()
with package.quiet_import():
    from robot_charger.sim import evcc_early


def bodies(told: Any, name: str) -> list[Any]:
    return list(told.bodies(name))


def amperes(value: Any) -> float:
    """A physical value or a rational number."""
    return float(value["Value"] * 10.0 ** value.get("Multiplier", value.get("Exponent")))


def test_a_vehicle_negotiates_anew_by_the_cable_check(tmp_path: Path) -> None:
    """ISO 15118-2 with direct current: contactors open, and everything from ChargeParameterDiscovery again."""
    told = talk(tmp_path, options={"renegotiate": True}, car={"charge_s": 2.5})
    assert (told.ok, told.link.phase, told.link.error) == (True, Link.ENDED, Code.NONE), told.link.text
    once = ["PARAMETERS", "CABLE_CHECK", "PRECHARGE", "CHARGING"]
    assert told.phases == ["SESSION", *once, *once, "STOPPING", "WELDING_CHECK", "ENDED"]
    wanted = ("PowerDeliveryReq", "ChargeParameterDiscoveryReq", "CableCheckReq")
    asked = [name for name, _ in itertools.groupby(n for n in told.names if n in wanted)]
    steps = ["ChargeParameterDiscoveryReq", "CableCheckReq", "PowerDeliveryReq"]
    assert asked == [*steps, *steps]  # Start and Renegotiate stand side by side
    answers = [live for name, live in zip(told.names, told.live, strict=True) if name == "PowerDeliveryRes"]
    assert answers == [True, False, True, False]  # started, negotiated anew, started, stopped
    renegotiated = told.names.index("ChargeParameterDiscoveryReq", told.names.index("CurrentDemandRes"))
    precharged = told.names.index("PreChargeReq", renegotiated)
    assert not any(told.live[renegotiated:precharged])


def test_a_vehicle_of_20_without_power_is_asked_to_pause(tmp_path: Path) -> None:
    """EVSENotification Pause: contactors open, the session is kept."""
    parameters = {"pause_after_s": 0.3}
    told = talk(tmp_path, protocol="iso15118-20", parameters=parameters, station={"limit_a": 0.0}, car={"charge_s": 9})
    assert (told.ok, told.link.phase, told.link.error) == (True, Link.PAUSED, Code.NONE), told.link.text
    notes = [r["EVSEStatus"]["EVSENotification"] for r in bodies(told, "DC_ChargeLoopRes") if "EVSEStatus" in r]
    assert set(notes) == {"Pause"}
    assert not told.live[-1] and told.codes[-1] == "OK"


@pytest.mark.parametrize("protocol", ["din", "iso15118-2", "iso15118-20"])
def test_without_power_the_charge_loop_goes_on_until_there_is_some(tmp_path: Path, protocol: str) -> None:
    """DIN 70121 and ISO 15118-2 know no pause that a station asks for; -20 waits for ``pause_after_s``."""
    parameters = {"pause_after_s": 5.0}
    station = {"limit_a": 0.0, "limit_s": 0.4}
    told = talk(tmp_path, protocol=protocol, parameters=parameters, station=station, car={"charge_s": 1.5})
    assert (told.ok, told.link.phase) == (True, Link.ENDED), told.link.text
    if protocol == "iso15118-20":
        limits = [r["Scheduled_DC_CLResControlMode"] for r in bodies(told, "DC_ChargeLoopRes")]
        told_a = [amperes(r["EVSEMaximumChargeCurrent"]) for r in limits]
    else:
        told_a = [amperes(r["EVSEMaximumCurrentLimit"]) for r in bodies(told, "CurrentDemandRes")]
    assert [a for a, _ in itertools.groupby(told_a)] == [150.0, 0.0, 150.0]


async def ask(session: Any, request: Any) -> Any:
    """One exchange of ISO 15118-20 beside the vehicle's states."""
    from iso15118.shared.exi_codec import EXI
    from iso15118.shared.messages.enums import ISOV20PayloadTypes, Namespace

    payload = EXI().to_exi(request, Namespace.ISO_V20_COMMON_MSG)
    session.writer.write(v2gtp.message(ISOV20PayloadTypes.MAINSTREAM, payload))
    answer = await session._read()
    return EXI().from_exi(answer[v2gtp.HEADER :], Namespace.ISO_V20_COMMON_MSG)


async def renegotiate_schedule(session: Any, way: str, name: str) -> None:
    """ScheduleRenegotiation, ScheduleExchange, Start; the charge loop goes on behind it."""
    from iso15118.shared.messages.enums import ControlMode
    from iso15118.shared.messages.iso15118_20 import common_messages as m
    from iso15118.shared.messages.iso15118_20.common_types import MessageHeader, Processing

    def header() -> MessageHeader:
        return MessageHeader(session_id=session.session_id, timestamp=int(time.time()))

    controller = session.ev_controller
    assert session.control_mode == ControlMode.SCHEDULED
    progress = m.ChargeProgress.SCHEDULE_RENEGOTIATION
    answer = await ask(
        session, m.PowerDeliveryReq(header=header(), ev_processing=Processing.ONGOING, charge_progress=progress)
    )
    assert answer.response_code.value == "OK"
    wishes = await controller.get_scheduled_se_params(None)
    answer = await ask(
        session, m.ScheduleExchangeReq(header=header(), max_supporting_points=12, scheduled_params=wishes)
    )
    profile, progress = await controller.process_scheduled_se_params(answer.scheduled_params, False)
    answer = await ask(
        session,
        m.PowerDeliveryReq(
            header=header(), ev_processing=Processing.FINISHED, charge_progress=progress, ev_power_profile=profile
        ),
    )
    assert answer.response_code.value == "OK"


def test_a_vehicle_of_20_negotiates_its_schedule_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contactors stay closed, no cable check, and the charge loop goes on."""
    monkeypatch.setattr(evcc_early, "put", renegotiate_schedule)
    told = talk(tmp_path, protocol="iso15118-20", options={"leave_at": "DC_ChargeLoopReq*3"}, car={"charge_s": 1.0})
    assert (told.ok, told.link.phase) == (True, Link.ENDED), (told.text, told.link.text)
    assert told.names.count("ScheduleExchangeRes") == 2 and told.phases.count("CABLE_CHECK") == 1
    again = len(told.names) - told.names[::-1].index("ScheduleExchangeReq") - 1
    assert told.live[again] and "DC_ChargeLoopRes" in told.names[again:]


def stop_request(session: Any) -> Any:
    """SessionStopReq that means to choose the service anew."""
    from iso15118.shared.messages.iso15118_20 import common_messages as m
    from iso15118.shared.messages.iso15118_20.common_types import MessageHeader

    header = MessageHeader(session_id=session.session_id, timestamp=int(time.time()))
    return m.SessionStopReq(header=header, charging_session=m.ChargingSession.SERVICE_RENEGOTIATION)


async def choose_anew(session: Any, way: str, name: str) -> None:
    """In the place of the SessionStopReq that ends all, one that goes back to ServiceDiscovery, and on from there."""
    from iso15118.evcc.states import iso15118_20_states
    from iso15118.shared.messages.enums import ISOV20PayloadTypes, Namespace, ServiceV20
    from iso15118.shared.messages.iso15118_20.common_messages import ServiceDiscoveryReq

    request = stop_request(session)
    assert (await ask(session, request)).response_code.value == "OK"
    car = session.ev_controller.vehicle
    car._since, car.requested_current_a = None, -40.0
    session.matched_services_v20.clear()
    session.charging_session_stop_v20 = None
    session.ev_controller.protocol = "iso15118-20-bpt"
    session.config.supported_energy_services = [ServiceV20.DC_BPT]
    session.current_state.create_next_message(
        iso15118_20_states.ServiceDiscovery,
        ServiceDiscoveryReq(header=request.header),
        2.0,
        Namespace.ISO_V20_COMMON_MSG,
        ISOV20PayloadTypes.MAINSTREAM,
    )


def test_a_vehicle_of_20_chooses_its_service_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DC first, then DC_BPT, in one session: contactors open between, and all checks come again."""
    monkeypatch.setattr(evcc_early, "put", choose_anew)
    options = {"leave_at": "SessionStopReq"}
    told = talk(tmp_path, protocol="iso15118-20", options=options, station={"export_a": 60.0}, car={"charge_s": 0.3})
    assert (told.ok, told.link.phase) == (True, Link.ENDED), (told.text, told.link.text)
    way = ["PARAMETERS", "CABLE_CHECK", "PRECHARGE", "CHARGING", "STOPPING", "WELDING_CHECK"]
    assert told.phases == ["SESSION", *way, *way, "ENDED"]
    assert told.link.bidirectional
    again = told.names.index("SessionStopReq")
    assert "AuthorizationReq" not in told.names[again:]  # it stays authorised
    charged = told.names.index("DC_ChargeLoopReq", again)
    assert not any(told.live[again : told.names.index("DC_PreChargeReq", again)])
    assert told.names.index("DC_CableCheckRes", again) < charged
    assert all(r["ServiceRenegotiationSupported"] for r in bodies(told, "ServiceDiscoveryRes"))


async def choose_anew_too_early(session: Any, way: str, name: str) -> None:
    session.certificate = (await ask(session, stop_request(session))).response_code.value


@pytest.mark.parametrize("at", ["AuthorizationReq", "DC_CableCheckReq", "DC_ChargeLoopReq*3"])
def test_a_service_chosen_anew_goes_not_by_authorisation_or_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(evcc_early, "put", choose_anew_too_early)
    told = talk(tmp_path, protocol="iso15118-20", options={"leave_at": at}, car={"charge_s": 5.0})
    assert told.vehicle.certificate == "FAILED_NoServiceRenegotiationSupported"
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE), told.link.text


async def renegotiate_too_early(session: Any, way: str, name: str) -> None:
    from iso15118.shared.messages.iso15118_20 import common_messages as m
    from iso15118.shared.messages.iso15118_20.common_types import MessageHeader, Processing

    header = MessageHeader(session_id=session.session_id, timestamp=int(time.time()))
    progress = m.ChargeProgress.SCHEDULE_RENEGOTIATION
    request = m.PowerDeliveryReq(header=header, ev_processing=Processing.ONGOING, charge_progress=progress)
    session.certificate = (await ask(session, request)).response_code.value


def test_a_schedule_negotiated_anew_before_any_transfer_starts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package would take it for Start."""
    monkeypatch.setattr(evcc_early, "put", renegotiate_too_early)
    told = talk(tmp_path, protocol="iso15118-20", options={"leave_at": "PowerDeliveryReq"})
    assert told.vehicle.certificate == "FAILED_SequenceError"
    assert "CHARGING" not in told.phases
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE), told.link.text


async def ask_for_contract(session: Any, way: str, name: str) -> None:
    from iso15118.shared.messages.iso15118_20 import common_messages as m
    from iso15118.shared.messages.iso15118_20.common_types import MessageHeader, RootCertificateIDList
    from iso15118.shared.messages.xmldsig import X509IssuerSerial

    chain = m.SignedCertificateChain(id="id1", certificate=b"certificate")
    roots = RootCertificateIDList(root_cert_ids=[X509IssuerSerial(x509_issuer_name="root", x509_serial_number=1)])
    request = m.CertificateInstallationReq(
        header=MessageHeader(session_id=session.session_id, timestamp=int(time.time())),
        oem_prov_cert_chain=chain,
        root_cert_id_list=roots,
        max_contract_cert_chains=1,
    )
    session.certificate = (await ask(session, request)).response_code.value


def test_plug_and_charge_is_not_offered_in_20(tmp_path: Path) -> None:
    """Whoever offers it to vehicles of -2 verifies no contract of -20 yet."""
    pki.make(tmp_path)
    parameters = {"pnc": True, "contract_installation": True, "tls.directory": str(tmp_path / "station")}
    told = talk(tmp_path, protocol="iso15118-20", parameters=parameters, certificates=tmp_path)
    assert (told.ok, told.link.contract) == (True, False), told.text
    (offer,) = bodies(told, "AuthorizationSetupRes")
    assert offer["AuthorizationServices"] == ["EIM"]
    assert "PnC_ASResAuthorizationMode" not in offer and not offer["CertificateInstallationService"]


def test_a_vehicle_of_20_that_wants_a_contract_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evcc_early, "put", ask_for_contract)
    told = talk(tmp_path, protocol="iso15118-20", options={"leave_at": "AuthorizationReq"})
    assert told.vehicle.certificate == "FAILED_SequenceError"
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE), told.link.text


def test_contactors_that_do_not_open_end_a_renegotiation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robot_charger.v2g.secc import shared

    monkeypatch.setattr(shared, "CONTACTOR_WAIT_S", 0.3)
    told = talk(tmp_path, options={"renegotiate": True}, car={"charge_s": 9.0}, station={"welded": True})
    assert told.codes[-1] == "FAILED_ContactorError"
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.CONTACTOR_WELDED), told.link.text


@pytest.mark.parametrize("protocol", ["iso15118-2", "iso15118-20", "din"])
@pytest.mark.parametrize("later_a", [20.0, 140.0])
def test_a_limit_of_the_back_end_moves_the_charge_loop_and_no_schedule(
    tmp_path: Path, protocol: str, later_a: float
) -> None:
    """The limit at the beginning, 60 A, stands in no schedule: it would hold the vehicle below it when it rises."""
    station = {"begins_a": 60.0, "limit_a": later_a}
    told = talk(tmp_path, protocol=protocol, station=station, car={"charge_s": 1.5})
    assert told.ok, told.text
    if protocol == "iso15118-20":
        answer = bodies(told, "ScheduleExchangeRes")[-1]
        schedule = answer["Scheduled_SEResControlMode"]["ScheduleTuple"][0]["ChargingSchedule"]["PowerSchedule"]
        assert amperes(schedule["PowerScheduleEntries"]["PowerScheduleEntry"][0]["Power"]) == 150_000
        limits = [r["Scheduled_DC_CLResControlMode"] for r in bodies(told, "DC_ChargeLoopRes")]
        told_a = [amperes(r["EVSEMaximumChargeCurrent"]) for r in limits]
    else:
        schedule = bodies(told, "ChargeParameterDiscoveryRes")[-1]["SAScheduleList"]["SAScheduleTuple"][0]
        if protocol == "iso15118-2":
            assert amperes(schedule["PMaxSchedule"]["PMaxScheduleEntry"][0]["PMax"]) == 150_000
        told_a = [amperes(r["EVSEMaximumCurrentLimit"]) for r in bodies(told, "CurrentDemandRes")]
    assert (told_a[0], told_a[-1]) == (60.0, later_a)
