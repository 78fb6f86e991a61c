"""Meters and modules of other makes over Modbus: maps by name against a foreign server, lines, late answers."""

from __future__ import annotations

import asyncio
import os
import pty
import struct
import threading
import time
import tty
from collections.abc import Iterator

import pytest
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer

from robot_charger.power.meter import SITE, MappedMeter, open_meters
from robot_charger.power.meter_map import VALUES, MapError, decode, load, names
from robot_charger.power.modbus_line import LineError, ModbusLine, Place, place_of
from robot_charger.power.parameters import PowerParameters


class Foreign:
    """pymodbus's own server: registers of one unit, holding and input alike."""

    def __init__(self, registers: dict[int, list[int]], unit: int = 7) -> None:
        whole = [0] * 0x7000
        for at, words in registers.items():
            whole[at : at + len(words)] = words
        block = ModbusSequentialDataBlock(1, whole)  # its blocks count from 1
        device = ModbusDeviceContext(hr=block, ir=block)
        self.context = ModbusServerContext(devices={unit: device}, single=False)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(5.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self.server = ModbusTcpServer(self.context, address=("127.0.0.1", 0))
        await self.server.serve_forever(background=True)
        self.port = self.server.transport.sockets[0].getsockname()[1]
        self._ready.set()
        self._end = asyncio.Event()
        await self._end.wait()
        await self.server.shutdown()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(5.0)


def f32(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))


def i32(value: int, low_first: bool = False) -> list[int]:
    words = list(struct.unpack(">2H", struct.pack(">i", value)))
    return words[::-1] if low_first else words


METERS = {
    "eastron-sdm630": {
        0: f32(230.5),
        6: f32(10.0) + f32(12.5) + f32(11.0),
        52: f32(-7500.0),
        72: f32(12.5),
        74: f32(1),
    },
    "carlo-gavazzi-em340": {
        0: i32(2305, True),
        12: i32(10_000, True) + i32(12_500, True) + i32(11_000, True),
        40: i32(-75_000, True),
        0x400: i32(12, True) + i32(500, True),
        0x408: i32(1, True) + i32(0, True),
    },
    "acrel-djsf1352": {
        0: [2305, 2],
        2: [0x10000 - 125, 2],
        8: [0x10000 - 75, 5],
        12: i32(12_500) + i32(1_000),
    },
}


@pytest.mark.parametrize("name", METERS)
def test_a_map_chosen_by_name_reads_a_foreign_server(name: str) -> None:
    foreign = Foreign(METERS[name])
    try:
        parameters = PowerParameters(
            meter__address=f"127.0.0.1:{foreign.port}", meter__map=name, meter__units=[7], evses=[1]
        )
        (meter,) = open_meters(parameters).values()
        assert isinstance(meter, MappedMeter)
        reading = meter.read()
        assert reading.voltage_v == pytest.approx(230.5, abs=0.1) and reading.current_a == pytest.approx(-12.5)
        assert reading.power_w == pytest.approx(-7500.0)
        assert (reading.import_wh, reading.export_wh) == (12_500.0, 1_000.0)
        meter.close()
        parameters.meter__reversed = True
        (turned,) = open_meters(parameters).values()
        reading = turned.read()
        assert reading.power_w == pytest.approx(7500.0) and reading.current_a == pytest.approx(12.5)
        assert (reading.import_wh, reading.export_wh) == (1_000.0, 12_500.0)
        turned.close()
    finally:
        foreign.close()


def test_every_map_is_whole() -> None:
    for name in names():
        assert set(load(name).values) == set(VALUES)


def test_unknown_maps_and_wrong_entries_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="eastron-sdm630"):
        open_meters(PowerParameters(meter__address="127.0.0.1:502", meter__map="nonsense"))
    file = tmp_path / "mine.yaml"
    whole = "{at: 1, type: u16}"
    for wrong, why in (
        ("{at: 1, type: u8}", "type"),
        ("{at: -1, type: u16}", "at"),
        ("{type: u16}", "at"),
        ("5", "at"),
    ):
        rows = "".join(f"  {v}: {wrong if v == 'power_w' else whole}\n" for v in VALUES)
        file.write_text(f"mine:\n{rows}")
        with pytest.raises(MapError, match=f"power_w.*{why}"):
            load(f"{file}:mine")
    file.write_text("mine:\n" + "".join(f"  {v}: {whole}\n" for v in VALUES))
    assert load(f"{file}:mine").read(lambda function, first, count: [7] * count)["power_w"] == 7.0


def test_formats_with_an_exponent_in_them() -> None:
    assert decode("t5", [0xFF00, 2305], False) == pytest.approx(230.5)
    assert decode("t6", [0xFEFF, 0x10000 - 1250], False) == pytest.approx(-12.5)
    assert decode("i64", [4, 3, 2, 1], True) == decode("i64", [1, 2, 3, 4], False)
    with pytest.raises(ValueError, match="registers"):
        decode("u32", [1], False)


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("rtu:/dev/ttyUSB0:19200:8E1", Place("rtu", "/dev/ttyUSB0", 19200, "E", 1)),
        ("rtu:/dev/ttyUSB0:9600", Place("rtu", "/dev/ttyUSB0", 9600, "N", 1)),
        ("rtu:/dev/ttyUSB0", Place("rtu", "/dev/ttyUSB0", 115200, "N", 1)),
        ("10.0.0.5:502", Place("tcp", "10.0.0.5", 502)),
    ],
)
def test_lines_by_one_word(word: str, place: Place) -> None:
    assert place_of(word) == place


@pytest.mark.parametrize("word", ["rtu:/dev/ttyUSB0:9600:7E1", "rtu:/dev/ttyUSB0:0", "rtu::9600", "host", "host:70000"])
def test_words_that_name_no_line_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        place_of(word)


def test_a_device_without_function_23_is_asked_by_16_and_3() -> None:
    asked: list[str] = []

    class Answer:
        def __init__(self, registers: list[int] | None, code: int = 0) -> None:
            self.registers, self.exception_code = registers, code

        def isError(self) -> bool:
            return self.registers is None

    class Client:
        def readwrite_registers(self, **_: object) -> Answer:
            asked.append("23")
            return Answer(None, 1)

        def write_registers(self, *_: object, **__: object) -> Answer:
            asked.append("16")
            return Answer([])

        def read_holding_registers(self, *_: object, count: int, **__: object) -> Answer:
            asked.append("3")
            return Answer([5] * count)

        def close(self) -> None:
            """Nothing to close."""

    line = ModbusLine("127.0.0.1:502")
    line._client = Client()
    assert line.exchange(1, 0, [1], 16, 2) == [5, 5] and line.exchange(1, 0, [1], 16, 2) == [5, 5]
    assert asked == ["23", "16", "3", "16", "3"]
    with pytest.raises(LineError, match="instead of 3"):
        line._counted(Answer([1, 2]), 3)


def crc16(data: bytes) -> bytes:
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


@pytest.fixture
def serial() -> Iterator[tuple[str, list[float]]]:
    """An RTU device on a pseudo terminal; each answer holds the first register asked for, late by the next delay."""
    master, slave = pty.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    delays: list[float] = []
    stop = threading.Event()

    def serve() -> None:
        data = b""
        while not stop.is_set():
            try:
                data += os.read(master, 64)
            except OSError:
                return
            while len(data) >= 8:
                frame, data = data[:8], data[8:]
                time.sleep(delays.pop(0) if delays else 0.0)
                body = bytes([frame[0], frame[1], 2]) + frame[2:4]
                os.write(master, body + crc16(body))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield os.ttyname(slave), delays
    stop.set()
    os.close(slave)
    os.close(master)


@pytest.mark.alone
def test_a_late_answer_is_never_taken_for_anothers(serial: tuple[str, list[float]]) -> None:
    device, delays = serial
    line = ModbusLine(f"rtu:{device}:19200", timeout_s=0.3)
    assert line.read_holding(1, 100, 1) == [100]
    delays.append(0.45)
    with pytest.raises(LineError):
        line.read_holding(1, 200, 1)
    assert line.read_holding(1, 300, 1) == [300]
    line.close()


def test_the_sites_meter_shares_the_line() -> None:
    plain = PowerParameters(evses=[1, 2], meter__address="127.0.0.1:1")
    assert set(open_meters(plain)) == {1, 2}
    meters = open_meters(PowerParameters(evses=[1, 2], meter__address="127.0.0.1:1", meter__site_unit=9))
    assert set(meters) == {SITE, 1, 2}
    name = names()[0]
    meters = open_meters(
        PowerParameters(evses=[1], meter__address="127.0.0.1:1", meter__site_unit=9, meter__site_map=name)
    )
    assert isinstance(meters[SITE], MappedMeter)
    wrong = PowerParameters(evses=[1], meter__address="127.0.0.1:1", meter__site_unit=9, meter__site_map="nothing")
    with pytest.raises(ValueError, match="site_map"):
        open_meters(wrong)
