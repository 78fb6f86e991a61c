"""SocketCAN of a real kernel: vcan0 with CAN-FD, vcan1 classic. ``make kernel`` runs these in QEMU.

Function, not timing: a virtual bus has no bit rate, no bus-off and no arbitration.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_charger.common.can_bus import BusError, FramePort, frame_port, open_bus
from robot_charger.common.can_udp import EXTENDED, FD
from robot_charger.power import codec

pytestmark = pytest.mark.skipif(
    not Path("/sys/class/net/vcan0").exists(), reason="this kernel has no vcan0: `make kernel` runs these in QEMU"
)
ERROR, REMOTE, WIDE = 0x2000_0000, 0x4000_0000, 0x8000_0000
CLASSIC, FLEXIBLE = struct.Struct("<IB3x8s"), struct.Struct("<IBB2x64s")


def raw(channel: str) -> socket.socket:
    """A foreign participant: a plain socket."""
    it = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
    it.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
    it.settimeout(5.0)
    it.bind((channel,))
    return it


@pytest.fixture
def fast() -> Iterator[tuple[FramePort, socket.socket]]:
    port, ear = frame_port(open_bus("socketcan:vcan0")), raw("vcan0")
    yield port, ear
    port.close()
    ear.close()


@pytest.fixture
def wide() -> Iterator[tuple[FramePort, socket.socket]]:
    port = frame_port(open_bus("socketcan:vcan1", fd=False), fd=False, extended=True)
    ear = raw("vcan1")
    yield port, ear
    port.close()
    ear.close()


def read(port: FramePort) -> list[tuple[int, int, bytes]]:
    """What has come: (identifier, flags, data)."""
    return [
        (int(b.ids[i]), int(b.flags[i]), b.data[i, : b.lengths[i]].tobytes())
        for b in port.read()
        for i in range(len(b))
    ]


@pytest.mark.parametrize("length", [8, 12, 16, 32, 64])
def test_frames_leave_as_can_fd_with_bit_rate_switch(fast: tuple[FramePort, socket.socket], length: int) -> None:
    port, ear = fast
    assert port.write([0x201], np.arange(length, dtype=np.uint8)[None])
    identifier, size, flags, data = FLEXIBLE.unpack(ear.recv(72))
    assert (identifier, size, flags & 1) == (0x201, length, 1) and data[:length] == bytes(range(length))


def test_46_set_points_arrive_in_order(fast: tuple[FramePort, socket.socket]) -> None:
    port, ear = fast
    ids = codec.SETPOINT_ID + 1 + np.arange(46)
    assert port.write(ids, np.zeros((46, 8), np.uint8)) and port.errors == 0
    assert [FLEXIBLE.unpack(ear.recv(72))[0] for _ in range(46)] == ids.tolist()


def test_both_kinds_of_frames_are_read_and_their_widths_told_apart(fast: tuple[FramePort, socket.socket]) -> None:
    port, ear = fast
    ear.send(FLEXIBLE.pack(0x101, 16, 1, bytes(64)))
    ear.send(CLASSIC.pack(0x301, 8, b"12345678"))
    ear.send(CLASSIC.pack(0x12345 | WIDE, 2, b"ab"))
    assert read(port) == [(0x101, FD, bytes(16)), (0x301, 0, b"12345678"), (0x12345, EXTENDED, b"ab")]


@pytest.mark.parametrize("identifier", [ERROR | 0x28C, ERROR | 0x40, ERROR | 0x18C, REMOTE | 0x185, REMOTE | 0x123])
def test_error_and_remote_frames_are_never_data(fast: tuple[FramePort, socket.socket], identifier: int) -> None:
    port, ear = fast
    ear.send(CLASSIC.pack(identifier, 8, bytes.fromhex("0004080000008060")))
    ear.send(CLASSIC.pack(0x7FE, 0, b""))
    time.sleep(0.1)
    assert [i for i, _, _ in read(port)] == [0x7FE]


def test_bus_off_is_told(fast: tuple[FramePort, socket.socket]) -> None:
    port, ear = fast
    ear.send(CLASSIC.pack(ERROR | 0x40, 8, bytes(8)))
    time.sleep(0.1)
    assert read(port) == [] and "bus-off" in port.notes[0]


def test_canopen_filters_let_nothing_else_pass() -> None:
    from robot_charger.power.drivers.canopen import CYCLIC

    port = frame_port(open_bus("socketcan:vcan1", fd=False, can_filters=CYCLIC), fd=False)
    ear = raw("vcan1")
    for identifier in (ERROR | 0x28C, REMOTE | 0x18C, WIDE | 0x18C, 0x58C, 0x18C):
        ear.send(CLASSIC.pack(identifier, 8, bytes(8)))
    time.sleep(0.1)
    assert read(port) == [(0x18C, 0, bytes(8))]
    port.close()
    ear.close()


def test_29_bit_identifiers_there_and_back(wide: tuple[FramePort, socket.socket]) -> None:
    port, ear = wide
    assert port.write([0x029C00F0], np.arange(8, dtype=np.uint8)[None])
    identifier, size, data = CLASSIC.unpack(ear.recv(72))
    assert (identifier, size, data) == (0x029C00F0 | WIDE, 8, bytes(range(8)))
    ear.send(CLASSIC.pack(0x0283F000 | WIDE, 8, bytes(8)))
    time.sleep(0.1)
    assert read(port) == [(0x0283F000, EXTENDED, bytes(8))]


def test_an_interface_that_goes_down_and_up(fast: tuple[FramePort, socket.socket]) -> None:
    port, ear = fast
    frame = np.zeros((1, 8), np.uint8)
    _link("vcan0", False)
    assert not port.write([0x201], frame) and port.errors == 1
    _link("vcan0", True)
    deadline = time.monotonic() + 5.0
    while not port.write([0x202], frame):
        assert time.monotonic() < deadline
    ear.close()
    with raw("vcan0") as other:
        assert port.write([0x203], frame) and FLEXIBLE.unpack(other.recv(72))[0] == 0x203


def _link(name: str, up: bool) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up" if up else "down")


def test_a_missing_interface_is_one_good_line() -> None:
    with pytest.raises(BusError, match="no network interface vcan7"):
        open_bus("socketcan:vcan7")


def test_the_chademo_bus_refuses_what_is_no_standard_data_frame() -> None:
    """As chademo.node reads its bus: python-can's messages with their marks."""
    bus = open_bus("socketcan:vcan1", fd=False)
    ear = raw("vcan1")
    for identifier in (ERROR | 0x102, REMOTE | 0x102, WIDE | 0x102, 0x102):
        ear.send(CLASSIC.pack(identifier, 8, bytes(8)))
    marks = []
    for _ in range(4):
        m = bus.recv(2.0)
        assert m is not None
        marks.append(m.is_error_frame or m.is_remote_frame or m.is_extended_id or m.is_fd)
    assert marks == [True, True, True, False]
    bus.shutdown()
    ear.close()


class Station:
    """The control loop here; rack and safety controller as processes, all on the kernel's buses."""

    def __init__(self, directory: Path, rack: list[str], **parameters: Any) -> None:
        from robot_charger.common.wires import RUN_DIRECTORY, WireEnd
        from robot_charger.power.control import Control
        from robot_charger.power.drivers import module_buses, open_ports
        from robot_charger.power.loop import ControlLoop
        from robot_charger.power.parameters import PowerParameters

        environment = {**os.environ, RUN_DIRECTORY: str(directory)}
        module = [sys.executable, "-m"]
        self.processes = [
            subprocess.Popen([*module, "robot_charger.sim.rack", "--bus", "socketcan:vcan0", *rack], env=environment),
            subprocess.Popen(
                [*module, "robot_charger.sim.safety", "--bus", "socketcan:vcan0", "--heartbeat-ms", "3000"],
                env=environment,
            ),
        ]
        self.wire = WireEnd("vehicle1", directory)
        self.until(lambda: (directory / "rack.wire").exists() and (directory / "safety.wire").exists())
        self.parameters = PowerParameters(
            bus="socketcan:vcan0", desk_grace_ms=500.0, meter__kind="none", bus_timeout_ms=5000.0,
            measurement_timeout_ms=1000.0, realtime=False, **parameters,
        )  # fmt: skip
        self.parameters.check()
        self.ports = open_ports(self.parameters)
        self.control = Control(self.parameters, len(module_buses(self.parameters)))
        self.control.driver.start()
        self.loop = ControlLoop(self.control, self.ports, realtime=False)
        self.loop.start()
        self.purpose, self.current_a, self.contactor, self.number = 0, 0.0, False, 1

    def say(self) -> None:
        from robot_charger.common.clock import now_ns
        from robot_charger.words.values import ChargePermit, Pilot, PilotState, VehicleTarget

        now = now_ns()
        car = {"connected": True, "contactor": self.contactor, "emf_v": 360.0, "resistance_ohm": 0.05}
        self.wire.send("rack", car)
        self.wire.send("safety", {"occupied": True, "immobilised": True, "insulation_ohm": 2e6, "pilot": 3})
        self.number += 1
        top = self.parameters.max_voltage_v
        volts = 360.0 if self.purpose == 2 else 420.0
        asked = self.purpose, volts, self.current_a, 440.0, 300.0, 1e5
        self.control.hear(1, PilotState(now, Pilot.C))
        self.control.hear(1, ChargePermit(now, self.number, "s", self.purpose, False, top, 0.0, 300.0, 0.0, 1e5))
        self.control.hear(1, VehicleTarget(now, self.number, "s", "plain", *asked, now, 5000))

    @property
    def output(self) -> Any:
        return self.control.channels[1].snapshot

    def until(self, condition: Any, seconds: float = 150.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if hasattr(self, "purpose"):
                self.say()
            assert time.monotonic() < deadline, f"not reached: {getattr(self, 'control', None) and self.output}"
            time.sleep(0.02)

    def charge(self, current_a: float) -> None:
        self.until(lambda: self.control.bank.healthy.all() and self.control.safety_alive)
        self.purpose = 1
        self.until(lambda: self.output.insulation == 2 and self.output.mode == 0)
        self.purpose = 2
        self.until(lambda: self.output.mode == 2 and abs(self.output.voltage_v - 360.0) < 20.0)
        self.contactor, self.purpose, self.current_a = True, 3, current_a
        self.until(lambda: self.output.mode == 3 and abs(self.output.current_a - current_a) < 2.5)

    def close(self) -> None:
        self.purpose, self.contactor = 0, False
        self.loop.stop()
        self.control.driver.close()
        for process in self.processes:
            process.terminate()
            process.wait()
        for port in self.ports:
            port.close()
        self.wire.close()


@pytest.mark.timeout(500)
@pytest.mark.parametrize("protocol", ["ek3", "infypower"])
def test_the_power_loop_charges_from_the_simulated_rack_over_vcan(tmp_path: Path, protocol: str) -> None:
    rack = ["--modules", "3", "--protocol", protocol, "--habit", "hold_s=5"]  # no timing: emulation may be slow
    parameters: dict[str, Any] = {"modules": 3, "module__timeout_ms": 5000.0}
    if protocol != "ek3":
        from robot_charger.power.contract import CONTRACTS
        from robot_charger.station import rating_parameters

        rack += ["--module-bus", "socketcan:vcan1"]
        own = {"module__protocol": protocol, "module__bus": "socketcan:vcan1", "module__cut_off": "inhibit"}
        rating = {n.replace(".", "__"): v for n, v in rating_parameters(CONTRACTS[protocol]).items()}
        parameters |= {**own, **rating, "contactors_break_load": True}
    station = Station(tmp_path, rack, **parameters)
    try:
        station.charge(15.0)
        station.purpose = 0
        station.until(lambda: station.output.mode in (0, 5) and abs(station.output.current_a) < 1.0)
        assert not station.output.contactors_closed or station.output.mode != 3
        assert station.control.bad < 10, "frames of the wrong kind on a bus"
    finally:
        station.close()
