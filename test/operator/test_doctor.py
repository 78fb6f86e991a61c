"""The doctor on machines with seeded faults: each is found, named, and told how to mend."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from robot_charger.cli import main
from robot_charger.operator.commands import doctor as doctor_command
from robot_charger.operator.doctor import ROS, Finding, Level, Needs, as_text, examine, fit, needs_of
from robot_charger.operator.machine import CAP_NET_RAW, CanInterface, Certificate, Machine

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
STATION = Needs(station=True, can=("can0",), vehicle_can=("can1",), plc=("plc0",), certificates=(Path("/certs"),))


class Healthy(Machine):
    """A station computer with nothing wrong; each test spoils something."""

    python = (3, 12, 1)
    variables = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    free = 10**11
    capabilities = {CAP_NET_RAW}
    not_after = NOW + timedelta(days=400)
    synchronised: bool | None = True
    refused_namespaces = ""
    no_logs = ""
    missing_modules: dict[str, str] = {}

    def __init__(self) -> None:
        self.packages = {name: f"{version}.6" for name, version in ROS.items()}
        self.can = {
            "can0": CanInterface("can0", True, True, 1_000_000, 5_000_000, False, 128, 100),
            "can1": CanInterface("can1", True, False, 500_000, 0, False, 128, 100),
        }
        self.local = {"plc0"}

    def python_version(self):
        return self.python

    def environment(self):
        return self.variables

    def package_version(self, name):
        return self.packages.get(name)

    def import_error(self, module):
        return self.missing_modules.get(module, "")

    def program(self, name):
        return f"/usr/bin/{name}"

    def network_interfaces(self):
        return {*self.can, "plc0", "lo"}

    def is_up(self, interface):
        return True

    def driver(self, interface):
        return "qcaspi"

    def can_interface(self, name):
        return self.can.get(name)

    def link_local(self, interface):
        return interface in self.local

    def namespaces(self):
        return self.refused_namespaces

    def capability(self, number):
        return number in self.capabilities

    def realtime(self):
        return True

    def clock_synchronised(self):
        return self.synchronised

    def now(self):
        return NOW.timestamp()

    def certificates(self, path):
        return [Certificate(path / "cpo.pem", "CN=SECC", self.not_after)]

    def free_bytes(self, path):
        return self.free

    def log_trouble(self):
        return self.no_logs

    def receive_buffer(self):
        return 4 << 20


def bad(machine: Machine, needs: Needs = STATION) -> list[Finding]:
    return [f for f in examine(machine, needs) if f.level == Level.BAD]


def test_a_healthy_station_and_desk_are_fit():
    assert bad(Healthy()) == []
    assert bad(Healthy(), Needs()) == []
    assert fit(examine(Healthy(), STATION))
    assert list(as_text(examine(Healthy(), STATION)))[-1] == "this computer is fit"


def test_three_faults_of_one_machine_are_all_found():
    machine = Healthy()
    machine.can["can0"] = CanInterface("can0", True, True, 500_000, 2_000_000)
    machine.not_after = NOW - timedelta(days=3)
    machine.capabilities = set()
    found = {f.check: f for f in bad(machine)}
    assert set(found) == {"can", "certificates", "permissions"}
    assert "500000 and 2000000" in found["can"].text and "bitrate 1000000 dbitrate 5000000" in found["can"].remedy
    assert "expired on 2026-11-19" in found["certificates"].text
    assert "AmbientCapabilities" in found["permissions"].remedy


def spoil(**values):
    machine = Healthy()
    for name, value in values.items():
        setattr(machine, name, value)
    return machine


@pytest.mark.parametrize(
    ("machine", "check", "word"),
    [
        (spoil(python=(3, 9, 2)), "python", "too old"),
        (spoil(packages={"ros-rclpy": "9.1.0"}), "ros", "ros-rclpy 9.1.0"),
        (spoil(variables={"ROS_DISTRO": "kilted"}), "ros", "kilted"),
        (spoil(missing_modules={"robot_charger.msg": "ImportError: no"}), "messages", "robot_charger.msg"),
        (spoil(missing_modules={"rclpy": "ImportError: librcl.so"}), "ros", "librcl.so"),
        (spoil(can={}), "can", "no interface can0"),
        (spoil(can={"can0": CanInterface("can0", True, True, 10**6, 5 * 10**6, False, 10, 100),
                    "can1": CanInterface("can1", True, False, 500_000, 0)}), "can", "queue of 10 frames"),
        (spoil(can={"can0": CanInterface("can0", True, True, 10**6, 5 * 10**6, False, 128, 0),
                    "can1": CanInterface("can1", True, False, 500_000, 0)}), "can", "restart is off"),
        (spoil(can={"can0": CanInterface("can0", False, True, 10**6, 5 * 10**6),
                    "can1": CanInterface("can1", True, False, 500_000, 0)}), "can", "can0 is down"),
        (spoil(can={"can0": CanInterface("can0", True, False, 10**6, 5 * 10**6),
                    "can1": CanInterface("can1", True, False, 500_000, 0)}), "can", "no CAN-FD"),
        (spoil(can={"can0": CanInterface("can0", True, True, 10**6, 5 * 10**6),
                    "can1": CanInterface("can1", True, False, 250_000, 0)}), "can", "250000"),
        (spoil(local=set()), "ipv6", "link-local"),
        (spoil(synchronised=False), "clock", "not synchronised"),
        (spoil(free=10**6), "disk", "1 MB free"),
        (spoil(no_logs="ROS cannot write its logs to /x"), "logs", "/x"),
        (spoil(variables={"FASTRTPS_DEFAULT_PROFILES_FILE": "/nowhere.xml"}), "dds", "/nowhere.xml"),
        (spoil(variables={"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}), "dds", "OFF"),
        (spoil(variables={"ROS_DOMAIN_ID": "300"}), "dds", "300"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_remedy(machine, check, word):
    findings = bad(machine)
    assert check in {f.check for f in findings}
    assert any(word in f.text for f in findings)
    assert all(f.remedy for f in findings)


def test_notes_do_not_make_a_desk_unfit():
    machine = spoil(refused_namespaces="Operation not permitted", synchronised=False, capabilities=set(), variables={})
    findings = examine(machine, Needs())
    assert fit(findings)
    assert {f.check for f in findings if f.level == Level.NOTE} >= {"namespaces", "clock"}


def test_a_certificate_about_to_expire_is_a_note():
    findings = [f for f in examine(spoil(not_after=NOW + timedelta(days=10)), STATION) if f.check == "certificates"]
    assert [f.level for f in findings] == [Level.NOTE]
    assert "10 days" in findings[0].text


def test_needs_come_from_the_parameter_files(tmp_path):
    (tmp_path / "power.yaml").write_text("/power: {ros__parameters: {bus: 'socketcan:can0,socketcan:can2'}}")
    (tmp_path / "v2g.yaml").write_text("/**: {ros__parameters: {interface: plc0, tls.directory: /etc/tls}}")
    (tmp_path / "backend.yaml").write_text("/backend: {ros__parameters: {store: /var/lib/x/backend.sqlite}}")
    needs = needs_of(tmp_path)
    assert needs.can == ("can0", "can2") and needs.plc == ("plc0",)
    assert needs.certificates == (Path("/etc/tls"),) and needs.data == (Path("/var/lib/x"),)


def expired_certificate(path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "seeded")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(NOW - timedelta(days=2)).not_valid_after(NOW - timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def test_certificates_are_read_from_pem(tmp_path):
    expired_certificate(tmp_path / "a.pem")
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (found,) = Machine().certificates(tmp_path)
    assert found.subject == "CN=seeded"
    result = CliRunner().invoke(doctor_command, ["--certificates", str(tmp_path)])
    assert result.exit_code == 1
    assert "CN=seeded) expired" in result.output


def test_command_finds_three_faults_seeded_on_this_machine(tmp_path, monkeypatch):
    """Real probes of the real machine: an interface that is not there, a dead certificate, a wrong DDS domain."""
    expired_certificate(tmp_path / "secc.pem")
    monkeypatch.setenv("ROS_DOMAIN_ID", "300")
    result = CliRunner().invoke(doctor_command, ["--can", "nosuchcan0", "--certificates", str(tmp_path), "--json"])
    assert result.exit_code == 1
    bad = {f["check"]: f for f in json.loads(result.output) if f["level"] == "bad"}
    assert {"can", "certificates", "dds"} <= set(bad)
    assert "nosuchcan0" in bad["can"]["text"] and "modprobe" in bad["can"]["remedy"]
    assert "expired" in bad["certificates"]["text"] and bad["certificates"]["remedy"]
    assert "300" in bad["dds"]["text"] and bad["dds"]["remedy"]


def test_command_finds_a_missing_interface_of_this_machine():
    result = CliRunner().invoke(doctor_command, ["--can", "nosuchcan0"])
    assert result.exit_code == 1
    assert "there is no interface nosuchcan0" in result.output and "modprobe" in result.output


def test_probes_of_this_machine_answer():
    machine = Machine()
    assert "lo" in machine.network_interfaces() and machine.is_up("lo")
    assert machine.can_interface("lo") is None
    assert machine.free_bytes(Path("/nosuch/folder/at/all")) > 0
    assert machine.clock_synchronised() in (True, False, None)
    assert isinstance(machine.namespaces(), str)
    assert machine.import_error("no_such_module").startswith("ModuleNotFoundError")


@pytest.mark.parametrize("arguments", [["demo"], ["up"], ["record"], ["watch"]])
def test_a_home_without_place_for_logs_is_told_in_one_line(tmp_path, monkeypatch, arguments):
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ROS_LOG_DIR", raising=False)
    monkeypatch.delenv("ROS_HOME", raising=False)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1 and f"{tmp_path}/home/.ros/log" in result.output
    assert "export ROS_LOG_DIR=" in result.output
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "logs"))
    assert not Machine().log_trouble()


def test_the_bus_of_a_gbt_plug_has_250_kbit_s():
    needs = Needs(station=True, can=("can0",), gbt_can=("can2",))
    machine = Healthy()
    for rate, well in ((250_000, True), (500_000, False)):
        machine.can["can2"] = CanInterface("can2", True, False, rate, 0)
        told = [f for f in examine(machine, needs) if f.check == "can" and "can2" in f.text]
        assert told and all((f.level is Level.OK) is well for f in told)
