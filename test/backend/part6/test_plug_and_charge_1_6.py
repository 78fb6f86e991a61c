"""Plug and Charge over DataTransfer of 1.6, texts of cost, and V2X of 2.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robot_charger.backend.pnc16 import VENDOR
from robot_charger.backend.records import Token, TokenInfo

from ..certificates import Authority
from .conftest import Rig, Rigs

EMAID = Token("DE8EKXC0000017", "eMAID")


def conf(payload: Any, status: str = "Accepted") -> dict[str, Any]:
    return {"status": status, "data": json.dumps(payload)}


def ask(one: Rig, pem: str) -> TokenInfo:
    found: list[TokenInfo] = []
    one.service.authorize(1, "", EMAID, pem, found.append)
    one.until(lambda: found)
    return found[0]


@pytest.fixture
def contract(tmp_path: Path) -> str:
    authority = Authority(tmp_path, ocsp="http://ocsp.example/")
    return authority.issue("contract")[0].read_text() + authority.pem


@pytest.fixture
def one(rig: Rigs) -> Rig:
    made = rig("1.6")
    assert made.configure("ISO15118PnCEnabled", "true") == "Accepted"
    return made


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (conf({"certificateStatus": "Accepted", "idTokenInfo": {"status": "Accepted"}}), "Accepted"),
        (conf({"idTokenInfo": {"status": "Accepted", "surplus": 1}}), "Accepted"),
        (conf({"certificateStatus": "CertificateRevoked", "idTokenInfo": {"status": "Accepted"}}), "Invalid"),
        (conf({"idTokenInfo": {"status": "Blocked"}}), "Blocked"),
        (conf({"idTokenInfo": {"status": None}}), "Invalid"),
        (conf({}), "Invalid"),
        ({"status": "Accepted", "data": "no JSON"}, "Invalid"),
        ({"status": "Accepted"}, "Invalid"),
        (conf({"idTokenInfo": {"status": "Accepted"}}, "Rejected"), "Invalid"),
        ({}, "Invalid"),
    ],
)
def test_a_contract_is_accepted_only_by_certificate_and_token(
    one: Rig, contract: str, answer: dict[str, Any], status: str
) -> None:
    one.central.rules["DataTransfer"] = answer
    assert ask(one, contract).status == status
    [told] = [p for p in one.of("DataTransfer") if p["vendorId"] == VENDOR]
    assert told["messageId"] == "Authorize"
    data = json.loads(told["data"])
    assert data["idToken"] == EMAID.id and data["iso15118CertificateHashData"][0]["hashAlgorithm"] == "SHA256"


def test_without_the_key_a_contract_is_an_ordinary_token(rig: Rigs, contract: str) -> None:
    plain = rig("1.6")
    assert ask(plain, contract).accepted
    assert plain.of("Authorize") == [{"idTag": EMAID.id}] and not plain.of("DataTransfer")


def test_a_vehicle_gets_its_contract_certificate(one: Rig) -> None:
    one.central.rules["DataTransfer"] = conf({"status": "Accepted", "exiResponse": "AAEC"})
    got: list[tuple[bytes, str]] = []
    one.service.vehicle_certificate("urn:iso:15118:2:2013:MsgDef", False, b"x", lambda d, t: got.append((d, t)))
    one.until(lambda: got)
    assert got == [(b"\x00\x01\x02", "")]
    assert json.loads(one.of("DataTransfer")[-1]["data"])["action"] == "Install"


def test_the_csms_installs_lists_and_deletes_roots(one: Rig, tmp_path: Path) -> None:
    pem = Authority(tmp_path, "v2g").pem

    def transfer(message: str, data: Any) -> dict[str, Any]:
        return one.call("DataTransfer", {"vendorId": VENDOR, "messageId": message, "data": json.dumps(data)})

    kind = "V2GRootCertificate"
    answer = transfer("InstallCertificate", {"certificateType": kind, "certificate": pem})
    assert json.loads(answer["data"]) == {"status": "Accepted"}
    listed = json.loads(transfer("GetInstalledCertificateIds", {"certificateType": [kind]})["data"])
    hashes = listed["certificateHashDataChain"][0]["certificateHashData"]
    assert json.loads(transfer("DeleteCertificate", {"certificateHashData": hashes})["data"]) == {"status": "Accepted"}
    assert transfer("Nothing", {})["status"] == "UnknownMessageId"
    for broken in (None, [], {"certificateType": 5}, {"certificateHashData": 7}, "x"):
        assert transfer("InstallCertificate", broken)["status"] == "Rejected"
        assert transfer("DeleteCertificate", broken)["status"] == "Rejected"


def test_fallback_texts_of_cost(rig: Rigs) -> None:
    made = rig()
    assert made.set("TariffCostCtrlr", "TotalCostFallbackMessage", "ask the operator") == "Accepted"
    assert made.set("TariffCostCtrlr", "TariffFallbackMessage", "0.50 a kWh") == "Accepted"
    made.charge()
    made.came("TransactionEvent", eventType="Started")
    assert "ask the operator" not in made.service.dialect.text()
    made.central.go()
    made.until(lambda: "ask the operator" in made.service.dialect.text())


def test_needs_and_modes_of_v2x(rig: Rigs) -> None:
    made = rig("2.1")
    made.charge()
    needs = {"current_a": 100.0, "voltage_v": 400.0, "soc": 50.0, "power_w": 40_000.0, "capacity_wh": 0.0}
    made.do(made.service.dialect.charging_needs, 1, {**needs, "bidirectional": True})
    [told] = made.came("NotifyEVChargingNeeds")
    assert told["chargingNeeds"]["requestedEnergyTransfer"] == "DC_BPT"
    assert told["chargingNeeds"]["v2xChargingParameters"]["maxChargePower"] == 40_000.0
    found = made.get("V2XChargingCtrlr", "SupportedOperationModes", evse={"id": 1})
    assert "CentralSetpoint" in found["attributeValue"]
