"""Contract certificates installed and renewed (ISO 15118-2): the vehicle asks, the back end answers, or does not."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from talk import Told, talk

from robot_charger.backend.plug_and_charge import PlugAndCharge
from robot_charger.common.faults import Code
from robot_charger.sim import package
from robot_charger.sim.csms.__main__ import issue_contracts
from robot_charger.sim.csms.server import Csms
from robot_charger.v2g import pki
from robot_charger.v2g.record import describe
from robot_charger.v2g.secc import contract as secc_contract
from robot_charger.words.values import Link

package.prepare()
with package.quiet_import():
    from iso15118.evcc.states import iso15118_2_states as evcc_states
    from iso15118.shared.messages.iso15118_2.datatypes import ResponseCode

    from robot_charger.sim import contracts, evcc_contract

WANTS = ("install", "update")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.make(directory)
    return directory


@pytest.fixture
def certificates(made: Path, tmp_path: Path) -> Path:
    """A test PKI that the vehicle may write to."""
    return Path(shutil.copytree(made, tmp_path / "pki"))


def contract(certificates: Path) -> Path:
    return certificates / "vehicle" / pki.ISO_2 / "certs" / "contractLeafCert.der"


class BackEnd:
    """Answers from a thread of its own, as the node does; ``spoil`` turns its answer into what it should not be."""

    def __init__(self, certificates: Path, spoil: Any = lambda answer: answer, refuses: str = "") -> None:
        self.directory = certificates / "operator"
        self.spoil = spoil
        self.refuses = refuses
        self.asked: list[bool] = []

    def __call__(self, update: bool, request: bytes, answer: Any) -> None:
        self.asked.append(update)
        threading.Thread(target=self._answer, args=(request, answer)).start()

    def _answer(self, request: bytes, answer: Any) -> None:
        if self.refuses:
            answer(b"", self.refuses)
        else:
            answer(self.spoil(contracts.answer(request, self.directory)), "")


def session(certificates: Path, wants: str, back_end: Any, offered: bool = True) -> Told:
    parameters = {"pnc": True, "contract_installation": offered, "tls.directory": str(certificates / "station")}
    options = {"pnc": True, "certificate": wants, "pki": str(certificates / "vehicle")}
    return talk(
        certificates.parent,
        parameters=parameters,
        options=options,
        certificates=certificates,
        ask_contract=back_end,
    )


def assert_refused(told: Told, code: str, text: str) -> None:
    assert not told.ok and told.codes[-1] == code, (told.text, told.codes, told.link.text)
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.AUTHORIZATION)
    assert text in told.link.text
    assert "AuthorizationReq" not in told.names and told.link.purpose == 0


def test_a_vehicle_without_a_contract_gets_one(certificates: Path) -> None:
    for name in ("contractLeaf", "moSubCA1", "moSubCA2"):
        (contract(certificates).parent / f"{name}Cert.der").unlink()
    (certificates / "vehicle" / pki.ISO_2 / "private_keys" / "contractLeaf.key").unlink()
    back_end = BackEnd(certificates)
    told = session(certificates, "install", back_end)
    assert (told.ok, told.link.text) == (True, "ended in order")
    assert (told.link.contract, told.link.identity) == (True, pki.CONTRACT)
    assert back_end.asked == [False] and told.vehicle.certificate == "OK"
    order = ["ServiceDetailRes", "CertificateInstallationReq", "CertificateInstallationRes", "PaymentDetailsReq"]
    assert [name for name in told.names if name in order] == order
    assert told.names[-1] == "SessionStopRes"


def test_a_contract_is_renewed(certificates: Path) -> None:
    before = x509.load_der_x509_certificate(contract(certificates).read_bytes())
    back_end = BackEnd(certificates)
    told = session(certificates, "update", back_end)
    after = x509.load_der_x509_certificate(contract(certificates).read_bytes())
    assert (told.ok, told.link.text) == (True, "ended in order")
    assert before.subject == after.subject and before.serial_number != after.serial_number
    assert back_end.asked == [True] and "CertificateUpdateRes" in told.names
    assert told.link.identity == pki.CONTRACT


def test_the_record_hides_the_contract(certificates: Path) -> None:
    told = session(certificates, "install", BackEnd(certificates))
    entry = told.entries[told.names.index("CertificateInstallationRes")]
    line = describe(entry, identity=False)
    assert line["exi"] == "hidden" != describe(entry, identity=True)["exi"]
    body = line["fields"]["Body"]["CertificateInstallationRes"]
    assert body["ContractSignatureEncryptedPrivateKey"] == "hidden" == body["eMAID"]
    assert body["ResponseCode"] == "OK"


def test_both_services_are_offered(certificates: Path) -> None:
    told = session(certificates, "install", BackEnd(certificates))
    (answer,) = told.bodies("ServiceDetailRes")
    offered = answer["ServiceParameterList"]["ParameterSet"]
    sets = {entry["ParameterSetID"]: entry["Parameter"][0]["stringValue"] for entry in offered}
    assert sets == {1: "Installation", 2: "Update"}


@pytest.mark.parametrize("wants", WANTS)
def test_the_small_csms_issues_contracts(certificates: Path, wants: str) -> None:
    """From end to end but for the WebSocket: what the back end asks by OCPP, and what the CSMS of a desk says."""
    csms = Csms(certificates.parent / "csms.sqlite")
    issue_contracts(csms, certificates / "operator")
    pnc = PlugAndCharge(exi_length=5600, chain_length=10_000)  # OCPP 2.0.1
    lengths = []

    def ask(update: bool, request: bytes, answer: Any) -> None:
        action, payload = pnc.vehicle_certificate("urn:iso:15118:2:2013:MsgDef", update, request)
        told = csms.answers[action](None, payload)  # type: ignore[arg-type]
        lengths.append(len(told["exiResponse"]))
        answer(pnc.read(told), "")

    told = session(certificates, wants, ask)
    assert (told.ok, told.link.text) == (True, "ended in order")
    assert lengths[0] <= 5600


def test_the_small_csms_refuses_what_is_no_request(certificates: Path) -> None:
    told = contracts.ocpp({"exiRequest": "AAAA"}, certificates / "operator")
    assert (told["status"], told["exiResponse"]) == ("Failed", "")


@pytest.mark.parametrize("wants", WANTS)
def test_a_back_end_that_refuses(certificates: Path, wants: str) -> None:
    told = session(certificates, wants, BackEnd(certificates, refuses="the CSMS has none: NoContract"))
    assert_refused(told, "FAILED_NoCertificateAvailable", "the CSMS has none: NoContract")


@pytest.mark.parametrize("wants", WANTS)
def test_a_back_end_that_says_nothing_in_time(certificates: Path, wants: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secc_contract, "CONTRACT_WAIT_S", 0.1)
    told = session(certificates, wants, lambda update, request, answer: None)
    assert_refused(told, "FAILED_NoCertificateAvailable", "did not answer in 0.1 s")


def test_the_vehicle_waits_longer_than_the_station() -> None:
    assert secc_contract.CONTRACT_WAIT_S < 5.0  # V2G_EVCC_Msg_Timeout of both messages


@pytest.mark.parametrize("wants", WANTS)
def test_no_back_end(certificates: Path, wants: str) -> None:
    assert_refused(session(certificates, wants, None), "FAILED_NoCertificateAvailable", "no back end issues")


@pytest.mark.parametrize("wants", WANTS)
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda answer: b"\x80\x98 nonsense", "could not be decoded"),
        (lambda answer: answer[:-20], "could not be decoded"),
        (lambda answer: evcc_contract.exi(foreign(answer)), "another session"),
        (lambda answer: evcc_contract.exi(swapped(answer)), "the back end answered with Certificate"),
    ],
    ids=["nonsense", "cut short", "another session", "another message"],
)
def test_an_answer_that_the_vehicle_could_not_use(certificates: Path, wants: str, spoil: Any, text: str) -> None:
    told = session(certificates, wants, BackEnd(certificates, spoil))
    assert_refused(told, "FAILED_NoCertificateAvailable", text)


def decoded(answer: bytes) -> Any:
    from iso15118.shared.exi_codec import EXI
    from iso15118.shared.messages.enums import Namespace

    return EXI().from_exi(answer, Namespace.ISO_V2_MSG_DEF)


def foreign(answer: bytes) -> Any:
    message = decoded(answer)
    message.header.session_id = "0102030405060708"
    return message


def swapped(answer: bytes) -> Any:
    """An installation for an update and the other way round."""
    message = decoded(answer)
    body = message.body
    values = body.get_message().dict(exclude_none=True)
    names = ("CertificateInstallationRes", "CertificateUpdateRes")
    other = names[0] if body.certificate_update_res else names[1]
    message.body = type(body).parse_obj({other: values})
    return message


@pytest.mark.parametrize("wants", WANTS)
def test_the_back_end_s_own_refusal_reaches_the_vehicle(certificates: Path, wants: str) -> None:
    def ask(update: bool, request: bytes, answer: Any) -> None:
        code = ResponseCode.FAILED_CERTIFICATE_REVOKED
        answer(contracts.answer(request, certificates / "operator", code), "")

    told = session(certificates, wants, ask)
    assert_refused(told, "FAILED_CertificateRevoked", "the back end said FAILED_CertificateRevoked")
    assert told.vehicle.certificate == "FAILED_CertificateRevoked"


@pytest.mark.parametrize("wants", WANTS)
@pytest.mark.parametrize("wrong", ["missing", "of another key"])
def test_a_wrong_signature_never_reaches_the_back_end(
    certificates: Path, wants: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = evcc_states.create_signature
    key, _ = pki.new_contract(certificates / "operator")[::-1]

    def sign(elements: Any, own: Any) -> Any:
        return None if wrong == "missing" else good(elements, key)

    monkeypatch.setattr(evcc_states, "create_signature", sign)
    monkeypatch.setattr(evcc_contract, "create_signature", sign)
    back_end = BackEnd(certificates)
    told = session(certificates, wants, back_end)
    assert_refused(told, "FAILED_SignatureError", "the signature of Certificate")
    assert back_end.asked == []


@pytest.mark.parametrize("wants", WANTS)
def test_an_expired_certificate_gets_no_other(tmp_path: Path, wants: str) -> None:
    pki.make(tmp_path / "pki", expired={"oemLeaf", "contractLeaf"})
    back_end = BackEnd(tmp_path / "pki")
    told = session(tmp_path / "pki", wants, back_end)
    text = "is not valid now" if wants == "install" else "has expired"
    assert_refused(told, "FAILED_CertificateExpired", text)
    assert back_end.asked == []


def test_a_contract_of_another_operator_is_not_renewed(certificates: Path, tmp_path: Path) -> None:
    pki.make(tmp_path / "other")
    for name in ("certs/moRootCACert.der", "certs/moRootCACert.pem"):
        source = tmp_path / "other" / "station" / pki.ISO_2 / name
        (certificates / "station" / pki.ISO_2 / name).write_bytes(source.read_bytes())
    told = session(certificates, "update", BackEnd(certificates))
    assert_refused(told, "FAILED_CertChainError", "not issued under")


@pytest.mark.parametrize("wants", WANTS)
def test_what_is_not_offered_is_out_of_order(certificates: Path, wants: str) -> None:
    back_end = BackEnd(certificates)
    told = session(certificates, wants, back_end, offered=False)
    assert told.codes[-1] == "FAILED_SequenceError" and back_end.asked == []
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE)
