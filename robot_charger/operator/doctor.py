"""Is this computer fit for the station? Every check is one function: it looks and says what it found.

A finding that is not well names what is wrong and the command that mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from enum import IntEnum
from pathlib import Path

from robot_charger import station
from robot_charger.common import configuration, host_only
from robot_charger.common.process import LOG_REMEDY
from robot_charger.operator.machine import CAP_NET_RAW, Machine
from robot_charger.power.contract import CONTRACTS

OLDEST_PYTHON = (3, 10)
ROS = {  # the set that works together, as in setup.py
    "ros-rclpy": "7.1",
    "ros-rmw-fastrtps-cpp": "8.4",
    "ros-std-msgs": "5.3",
    "ros-std-srvs": "5.3",
    "ros-diagnostic-msgs": "5.3",
    "ros-sensor-msgs": "5.3",
    "ros-geometry-msgs": "5.3",
    "ros-trajectory-msgs": "5.3",
    "ros-lifecycle-msgs": "2.0",
    "ros-action-msgs": "2.0",
}
QUEUE, LEAST_QUEUE = 128, 64  # frames: a round of 46 set-points, and not many rounds more
BITRATE, DATA_BITRATE, CHADEMO_BITRATE = 1_000_000, 5_000_000, 500_000
GBT_BITRATE = 250_000
FREE_BYTES = 500 * 1024 * 1024
RECEIVE_BUFFER = 1024 * 1024
WARN_DAYS = 30
DAY_S = 86_400.0


class Level(IntEnum):
    OK = 0
    NOTE = 1  # worth knowing; nothing has to be done
    BAD = 2


@dataclass(frozen=True)
class Finding:
    """``remedy`` is a command or one sentence; only an OK finding may lack it."""

    check: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Needs:
    """What the computer is to be fit for."""

    station: bool = False  # real hardware: interfaces, permissions and certificates are then required
    parameters: tuple[Path, tuple[configuration.Trouble, ...]] | None = None  # directory of files, and their faults
    can: tuple[str, ...] = ()  # power modules and safety controller
    module_can: tuple[str, ...] = ()  # modules on buses of their own
    module_bitrate: int = 0
    vehicle_can: tuple[str, ...] = ()  # CHAdeMO
    gbt_can: tuple[str, ...] = ()  # GB/T 27930
    plc: tuple[str, ...] = ()
    certificates: tuple[Path, ...] = ()
    data: tuple[Path, ...] = field(default_factory=lambda: (Path("~/.local/state/robot_charger").expanduser(),))


def needs_of(config: Path, evses: Sequence[int] = (1,)) -> Needs:
    """What the parameter files of a station with these EVSEs ask for. Their faults are in ``parameters``."""
    asked: list[tuple[str, str, configuration.Value]] = []  # executable, parameter, value: one per node
    for node in station.nodes(evses, config):
        values: dict[str, configuration.Value] = {}
        for section in (s for file in node.files for s in configuration.read(file).sections if s.is_for(node.name)):
            values.update(section.values)
        asked += [(node.executable, name, value) for name, value in values.items() if value.value]

    def texts(executable: str, name: str) -> list[str]:
        return list(dict.fromkeys(str(v.value) for e, n, v in asked if (e, n) == (executable, name)))

    def paths(executable: str, name: str) -> list[Path]:
        named = [v.file.parent / Path(str(v.value)).expanduser() for e, n, v in asked if (e, n) == (executable, name)]
        return list(dict.fromkeys(named))

    def socketcan(buses: list[str]) -> tuple[str, ...]:
        parts = [part.strip() for bus in buses for part in bus.split(",")]
        return tuple(part.partition(":")[2] for part in parts if part.startswith("socketcan:"))

    certificates = [paths("v2g", "tls.directory"), paths("backend", "tls.ca_file")]
    certificates += [paths("backend", "tls.certificate_file")]
    return Needs(
        station=True,
        parameters=(config, tuple(station.troubles(evses, config))),
        can=socketcan(texts("power", "bus")),
        module_can=socketcan(texts("power", "module.bus")),
        module_bitrate=CONTRACTS.get("".join(texts("power", "module.protocol")[:1]), CONTRACTS["ek3"]).bit_rate,
        vehicle_can=socketcan(texts("chademo", "bus")),
        gbt_can=socketcan(texts("gbt", "bus")),
        plc=tuple(texts("v2g", "interface")),
        certificates=tuple(path for found in certificates for path in found),
        data=tuple(store.parent for store in paths("backend", "store")) or Needs().data,
    )


def examine(machine: Machine, needs: Needs) -> list[Finding]:
    """All findings, in the order of the checks."""
    findings: list[Finding] = []
    for check in CHECKS:
        findings += check(machine, needs)
    return findings


def _python(machine: Machine, needs: Needs) -> Iterator[Finding]:
    version = machine.python_version()
    text = "Python " + ".".join(str(v) for v in version)
    if version[:2] < OLDEST_PYTHON:
        yield Finding(
            "python", Level.BAD, f"{text} is too old, 3.10 is needed", "apt install python3.11 python3.11-venv"
        )
    else:
        yield Finding("python", Level.OK, text)


def _ros(machine: Machine, needs: Needs) -> Iterator[Finding]:
    system = machine.environment().get("ROS_DISTRO", "")
    if system:
        if system != "jazzy":
            yield Finding(
                "ros", Level.BAD, f"ROS {system} is sourced, Jazzy is needed", "source /opt/ros/jazzy/setup.bash"
            )
        else:
            yield Finding("ros", Level.OK, "ROS 2 jazzy is sourced")
    else:
        wrong = {n: machine.package_version(n) for n in ROS}
        wrong = {n: v for n, v in wrong.items() if v is None or not v.startswith(ROS[n] + ".")}
        if wrong:
            names = ", ".join(f"{n} {v or 'missing'} (needs {ROS[n]}.*)" for n, v in wrong.items())
            remedy = "make setup" if None in wrong.values() else "pip install --no-deps -r requirements.lock"
            yield Finding("ros", Level.BAD, f"ROS 2 set: {names}", remedy)
        else:
            yield Finding("ros", Level.OK, f"ROS 2 Jazzy from PyPI, rclpy {machine.package_version('ros-rclpy')}")
    error = machine.import_error("rclpy")
    if error:
        remedy = (
            "source /opt/ros/jazzy/setup.bash"
            if system
            else "pip install --no-deps --force-reinstall -r requirements.lock"
        )
        yield Finding("ros", Level.BAD, f"rclpy cannot be imported: {error}", remedy)


def _parameters(machine: Machine, needs: Needs) -> Iterator[Finding]:
    if needs.parameters is None:
        return
    folder, troubles = needs.parameters
    for trouble in troubles:
        yield Finding("parameters", Level.BAD, str(trouble), f"correct {trouble.file}; docs/parameters.md lists all")
    if not troubles:
        yield Finding("parameters", Level.OK, f"{folder}: files, sections, names, types and ranges are right")


def _compiler(machine: Machine, needs: Needs) -> Iterator[Finding]:
    missing = [
        n for n in ("cc", "c++") if not machine.program(machine.environment().get({"cc": "CC"}.get(n, "CXX"), n))
    ]
    if missing:
        yield Finding(
            "compiler",
            Level.NOTE if needs.station else Level.BAD,
            f"no {' and no '.join(missing)}: the interfaces cannot be built anew",
            "apt install g++",
        )
    else:
        yield Finding("compiler", Level.OK, f"C compiler {machine.program(machine.environment().get('CC', 'cc'))}")


def _messages(machine: Machine, needs: Needs) -> Iterator[Finding]:
    for module in ("robot_charger.msg", "robot_charger.srv", "robot_charger.action"):
        error = machine.import_error(module)
        if error:
            yield Finding(
                "messages",
                Level.BAD,
                f"{module} cannot be imported: {error}",
                "pip install --no-deps --no-build-isolation --editable .  (colcon build on a station)",
            )
            return
    yield Finding("messages", Level.OK, "messages, services and actions can be imported")


def _can(machine: Machine, needs: Needs) -> Iterator[Finding]:
    if needs.station and not needs.can:
        yield Finding("can", Level.BAD, "no CAN bus is named for power", "set bus: socketcan:can0 in config/power.yaml")
    for name in needs.can:
        yield from _can_interface(machine, name, BITRATE, DATA_BITRATE)
    for name in needs.module_can:
        yield from _can_interface(machine, name, needs.module_bitrate, 0)
    for name in needs.vehicle_can:
        yield from _can_interface(machine, name, CHADEMO_BITRATE, 0)
    for name in needs.gbt_can:
        yield from _can_interface(machine, name, GBT_BITRATE, 0)
    if not needs.station and not needs.can:
        yield Finding("can", Level.OK, "not needed: a desk's CAN runs over UDP on 127.0.0.1")


def _can_interface(machine: Machine, name: str, bitrate: int, data_bitrate: int) -> Iterator[Finding]:
    rates = f"bitrate {bitrate}" + (f" dbitrate {data_bitrate} fd on" if data_bitrate else "")
    queue = f"ip link set {name} txqueuelen {QUEUE}"
    set_up = f"ip link set {name} down; ip link set {name} type can {rates} restart-ms 100; {queue}; "
    set_up += f"ip link set {name} up"
    if name not in machine.network_interfaces():
        yield Finding(
            "can",
            Level.BAD,
            f"there is no interface {name}",
            "modprobe -a can can_raw; then `ip link`, and dmesg for the adapter's driver",
        )
        return
    can = machine.can_interface(name)
    if can is None:
        yield Finding(
            "can",
            Level.BAD,
            f"{name} is no CAN interface, or iproute2 is missing",
            "apt install iproute2; ip -details link show " + name,
        )
        return
    if can.virtual:
        yield Finding(
            "can",
            Level.NOTE,
            f"{name} is a virtual CAN: no bit rates",
            "only for tests; name the adapter's interface on a station",
        )
    elif can.bitrate != bitrate or (data_bitrate and can.data_bitrate != data_bitrate):
        told = f"{can.bitrate}" + (f" and {can.data_bitrate} for data" if data_bitrate else "")
        right = f"{bitrate}" + (f" and {data_bitrate}" if data_bitrate else "")
        yield Finding("can", Level.BAD, f"{name} runs at {told} bit/s, {right} is needed", set_up)
        return
    if data_bitrate and not can.fd:
        remedy = f"ip link set {name} mtu 72" if can.virtual else set_up
        yield Finding("can", Level.BAD, f"{name} has no CAN-FD", remedy)
    elif not can.up:
        yield Finding("can", Level.BAD, f"{name} is down", f"ip link set {name} up" if can.virtual else set_up)
    else:
        yield Finding("can", Level.OK, f"{name} is up")
        if 0 < can.queue < LEAST_QUEUE:
            text = f"{name} has a transmit queue of {can.queue} frames: a round of set-points does not fit"
            yield Finding("can", Level.BAD, text, f"{queue}; for good: config/systemd/network/80-can.link")
        if not can.virtual and not can.restart_ms and can.queue:
            text = f"{name} stays silent after bus-off: automatic restart is off"
            yield Finding("can", Level.BAD, text, set_up)


def _plc(machine: Machine, needs: Needs) -> Iterator[Finding]:
    if needs.station and not needs.plc:
        yield Finding("plc", Level.BAD, "no PLC interface is named for v2g", "set interface: plc0 in config/v2g.yaml")
    for name in needs.plc:
        if name not in machine.network_interfaces():
            yield Finding(
                "plc",
                Level.BAD,
                f"there is no interface {name}",
                "modprobe qcaspi; then `ip link`; for the name see the udev rule in docs/station.md",
            )
            continue
        if not machine.is_up(name):
            yield Finding("plc", Level.BAD, f"{name} is down", f"ip link set {name} up")
            continue
        driver = machine.driver(name)
        yield Finding("plc", Level.OK, f"{name} is up" + (f", driver {driver}" if driver else ""))
        if not machine.link_local(name):
            yield Finding(
                "ipv6",
                Level.BAD,
                f"{name} has no IPv6 link-local address: no vehicle finds the station",
                f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0 net.ipv6.conf.{name}.addr_gen_mode=0; ip link "
                f"set {name} down; ip link set {name} up",
            )
        else:
            yield Finding("ipv6", Level.OK, f"{name} has a link-local address")
    if not needs.plc and not needs.station:
        if machine.ipv6():
            yield Finding("ipv6", Level.OK, "the kernel has IPv6")
        else:
            yield Finding(
                "ipv6",
                Level.BAD,
                "the kernel has no IPv6: V2G cannot run",
                "remove ipv6.disable=1 from the kernel's command line and reboot",
            )


def _namespaces(machine: Machine, needs: Needs) -> Iterator[Finding]:
    if needs.station:
        return
    reason = machine.namespaces()
    if reason:
        yield Finding(
            "namespaces",
            Level.NOTE,
            f"user and network namespaces are refused ({reason}): SLAC is simulated without a kernel link",
            "sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
            "kernel.apparmor_restrict_unprivileged_userns=0; "
            "in a container: --cap-add SYS_ADMIN; or robot-charger demo --interface lo",
        )
    else:
        yield Finding("namespaces", Level.OK, "user and network namespaces can be made")


def _permissions(machine: Machine, needs: Needs) -> Iterator[Finding]:
    bad = Level.BAD if needs.station else Level.NOTE
    if machine.capability(CAP_NET_RAW):
        yield Finding("permissions", Level.OK, "CAP_NET_RAW is there: SLAC may open raw sockets")
    elif needs.station:
        yield Finding(
            "permissions",
            bad,
            "CAP_NET_RAW is missing: SLAC cannot open raw sockets",
            "AmbientCapabilities=CAP_NET_RAW CAP_SYS_NICE in the unit (config/systemd); by hand: systemd-run "
            "-p AmbientCapabilities=CAP_NET_RAW ...",
        )
    if machine.realtime():
        yield Finding("permissions", Level.OK, "SCHED_FIFO is permitted: 10 ms cycles keep their time under load")
    else:
        yield Finding(
            "permissions",
            bad,
            "SCHED_FIFO is refused: 10 ms cycles may come late under load",
            "AmbientCapabilities=CAP_NET_RAW CAP_SYS_NICE in the unit (config/systemd); by hand: "
            * needs.station
            + "as root: echo 'USER - rtprio 80' > /etc/security/limits.d/robot_charger.conf (USER: who runs it); "
            "then log in anew",
        )


def _clock(machine: Machine, needs: Needs) -> Iterator[Finding]:
    if machine.now() < 1_735_689_600:  # 2025
        yield Finding(
            "clock",
            Level.BAD,
            "the clock shows a date before 2025: certificates look not yet valid",
            "timedatectl set-ntp true",
        )
        return
    synchronised = machine.clock_synchronised()
    if synchronised is False:
        yield Finding(
            "clock",
            Level.BAD if needs.station else Level.NOTE,
            "the clock is not synchronised: meter readings and certificates go by it",
            "timedatectl set-ntp true; or apt install chrony",
        )
    else:
        yield Finding(
            "clock",
            Level.OK,
            "the clock is synchronised"
            if synchronised
            else "the kernel does not tell whether the clock is synchronised",
        )


def _certificates(machine: Machine, needs: Needs) -> Iterator[Finding]:
    for path in needs.certificates:
        try:
            certificates = machine.certificates(path)
        except (OSError, ValueError) as error:
            yield Finding(
                "certificates",
                Level.BAD,
                f"{path}: {error}",
                f"ls -l {path}; put PEM files there, readable by the station's user",
            )
            continue
        if not certificates:
            yield Finding("certificates", Level.BAD, f"{path} holds no certificate", f"put PEM files into {path}")
        worst: tuple[float, str] | None = None
        for c in certificates:
            end = c.not_after if c.not_after.tzinfo else c.not_after.replace(tzinfo=timezone.utc)
            days = (end.timestamp() - machine.now()) / DAY_S
            if worst is None or days < worst[0]:
                worst = (days, f"{c.path.name} ({c.subject})")
            if days < 0:
                yield Finding(
                    "certificates",
                    Level.BAD,
                    f"{c.path} ({c.subject}) expired on {end:%Y-%m-%d}",
                    f"renew it and replace {c.path}; openssl x509 -enddate -noout -in {c.path}",
                )
            elif days < WARN_DAYS:
                yield Finding(
                    "certificates",
                    Level.NOTE,
                    f"{c.path} ({c.subject}) expires in {days:.0f} days",
                    f"renew it and replace {c.path}",
                )
        if worst and worst[0] >= WARN_DAYS:
            yield Finding(
                "certificates",
                Level.OK,
                f"{path}: {len(certificates)}, first to expire {worst[1]} in {worst[0]:.0f} days",
            )


def _disk(machine: Machine, needs: Needs) -> Iterator[Finding]:
    for path in needs.data:
        free = machine.free_bytes(path)
        if free < FREE_BYTES:
            yield Finding(
                "disk",
                Level.BAD,
                f"{path}: {free / 1e6:.0f} MB free, {FREE_BYTES / 1e6:.0f} MB are needed for bookkeeping and "
                "recordings",
                f"du -xh --max-depth=2 {path} | sort -h | tail; remove old recordings, or robot-charger "
                "record --limit-mb",
            )
        else:
            yield Finding("disk", Level.OK, f"{path}: {free / 1e9:.1f} GB free")


def _logs(machine: Machine, needs: Needs) -> Iterator[Finding]:
    trouble = machine.log_trouble()
    if trouble:
        yield Finding("logs", Level.BAD, f"{trouble}: no node can start", LOG_REMEDY)
    else:
        yield Finding("logs", Level.OK, "ROS can write its logs")


def _dds(machine: Machine, needs: Needs) -> Iterator[Finding]:
    environment = machine.environment()
    rmw = environment.get(host_only.RMW, host_only.FAST_DDS)
    scope = environment.get(host_only.RANGE, host_only.LOCALHOST)
    profiles = environment.get(host_only.PROFILES, "")
    used = {**environment, **host_only.variables(environment)}  # by robot-charger and the launch files
    if scope == "OFF":
        yield Finding(
            "dds",
            Level.BAD,
            f"{host_only.RANGE}=OFF: the nodes do not find each other",
            f"export {host_only.RANGE}=LOCALHOST",
        )
    elif profiles and not machine.is_file(profiles):
        yield Finding(
            "dds",
            Level.BAD,
            f"{host_only.PROFILES}={profiles} is no file: Fast DDS goes on without it, on every network",
            f"unset {host_only.PROFILES}",
        )
    elif not host_only.is_host_only(used) and needs.station:
        yield Finding(
            "dds",
            Level.NOTE,
            f"{host_only.RANGE}={scope}{', ' + profiles if profiles else ''}: whoever is on the network can command "
            "the station",
            f"export {host_only.RANGE}=LOCALHOST",
        )
    else:
        yield Finding("dds", Level.OK, f"{rmw}, this computer only" if host_only.is_host_only(used) else rmw)
    domain = environment.get("ROS_DOMAIN_ID", "0")
    if not domain.isdigit() or int(domain) > 101:
        yield Finding("dds", Level.BAD, f"ROS_DOMAIN_ID={domain} is not 0 to 101", "export ROS_DOMAIN_ID=0")
    buffer = machine.receive_buffer()
    if needs.station and 0 < buffer < RECEIVE_BUFFER:
        yield Finding(
            "dds",
            Level.NOTE,
            f"receive buffers are limited to {buffer // 1024} kB: bursts of frames may be lost",
            f"sysctl -w net.core.rmem_max={4 * RECEIVE_BUFFER}",
        )


CHECKS: tuple[Callable[[Machine, Needs], Iterator[Finding]], ...] = (
    _python,
    _ros,
    _parameters,
    _compiler,
    _messages,
    _can,
    _plc,
    _namespaces,
    _permissions,
    _clock,
    _certificates,
    _disk,
    _logs,
    _dds,
)


def as_text(findings: list[Finding]) -> Iterator[str]:
    """Lines for a terminal: what, how it is, and how to mend it."""
    words = {Level.OK: "ok  ", Level.NOTE: "note", Level.BAD: "BAD "}
    for finding in findings:
        yield f"{words[finding.level]} {finding.check:<13}{finding.text}"
        if finding.remedy:
            yield f"{'':<18}-> {finding.remedy}"
    bad = sum(f.level == Level.BAD for f in findings)
    yield f"{bad} thing{'' if bad == 1 else 's'} to mend" if bad else "this computer is fit"


def fit(findings: list[Finding]) -> bool:
    return all(f.level != Level.BAD for f in findings)
