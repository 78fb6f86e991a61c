"""The Linux pilot board against a fake sysfs tree and fake lines; and CHAdeMO's wires on the same lines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robot_charger.chademo.drivers.lines import GpioWires, Wiring
from robot_charger.chademo.logic import WiresIn, WiresOut
from robot_charger.common.gpio import GpioError, Lines
from robot_charger.pilot.drivers import DriverError
from robot_charger.pilot.drivers.linux import Board, Channel, LinuxOutlet, LinuxPilot, OutletLines
from robot_charger.pilot.logic import Output
from robot_charger.words.values import PilotMode


class FakeGpiod:
    """The few names of libgpiod 2 that Lines uses."""

    class line:
        Value = SimpleNamespace(ACTIVE="active", INACTIVE="inactive")
        Direction = SimpleNamespace(INPUT="input", OUTPUT="output")

    def __init__(self) -> None:
        self.values: dict[tuple[str, int], str] = {}
        self.settings: dict[tuple[str, int], Any] = {}
        self.order: list[tuple[int, str]] = []
        self.released = 0
        self.dead = False

    def LineSettings(self, **options: Any) -> Any:
        return options

    def request_lines(self, chip: str, consumer: str, config: dict[int, Any]) -> Any:
        if chip == "/dev/gpiochip9":
            raise FileNotFoundError(2, "No such file or directory")
        ((offset, options),) = config.items()
        self.settings[chip, offset] = options
        self.values.setdefault((chip, offset), options.get("output_value", "inactive"))
        fake = self

        class Request:
            def set_value(self, at: int, value: str) -> None:
                if fake.dead:
                    raise OSError(5, "Input/output error")
                fake.values[chip, at] = value
                fake.order.append((at, value))

            def get_value(self, at: int) -> str:
                if fake.dead:
                    raise OSError(5, "Input/output error")
                return fake.values[chip, at]

            def release(self) -> None:
                fake.released += 1

        return Request()


@pytest.fixture
def gpiod() -> FakeGpiod:
    return FakeGpiod()


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    pwm = tmp_path / "class/pwm/pwmchip2/pwm1"
    pwm.mkdir(parents=True)
    for name, value in (("period", "0"), ("duty_cycle", "0"), ("enable", "0")):
        (pwm / name).write_text(value + "\n")
    adc = tmp_path / "bus/iio/devices/iio:device3"
    adc.mkdir(parents=True)
    (adc / "in_voltage_scale").write_text("0.805664062\n")  # 3.3 V, 12 bit
    for channel in range(3):
        (adc / f"in_voltage{channel}_raw").write_text("0\n")
    return tmp_path


def board(sysfs: Path, **changes: Any) -> Board:
    values: dict[str, Any] = {
        "pwm": "pwmchip2/1",
        "adc": "iio:device3",
        "high": Channel(0, 5.0),
        "low": Channel(1, -5.0),
        "proximity": Channel(2),
        "sysfs": str(sysfs),
    }
    return Board(**(values | changes))


def say(sysfs: Path, channel: int, volts: float) -> None:
    (sysfs / f"bus/iio/devices/iio:device3/in_voltage{channel}_raw").write_text(f"{volts / 0.000805664062:.0f}\n")


def pwm(sysfs: Path, name: str) -> int:
    return int((sysfs / "class/pwm/pwmchip2/pwm1" / name).read_text())


def test_outputs_become_duty_cycles_of_1_khz(sysfs: Path) -> None:
    pilot = LinuxPilot(board(sysfs))
    assert (pwm(sysfs, "period"), pwm(sysfs, "duty_cycle"), pwm(sysfs, "enable")) == (1_000_000, 0, 1)
    for output, duty_ns in (
        (Output(PilotMode.STEADY), 1_000_000),
        (Output(PilotMode.PWM, 0.05), 50_000),
        (Output(PilotMode.PWM, 0.5333), 533_300),
        (Output(PilotMode.F), 0),
    ):
        pilot.set_output(output)
        assert pwm(sysfs, "duty_cycle") == duty_ns
    pilot.set_output(Output(PilotMode.STEADY))
    pilot.close()
    assert pwm(sysfs, "duty_cycle") == 0, "state F is what it leaves"


def test_levels_come_from_the_adc_by_gain_and_scale(sysfs: Path) -> None:
    pilot = LinuxPilot(board(sysfs))
    pilot.set_output(Output(PilotMode.PWM, 0.05))
    say(sysfs, 0, 1.2)
    say(sysfs, 1, 2.4)
    say(sysfs, 2, 1.98)  # 1500 ohm below 1 kohm at 3.3 V
    levels = pilot.measure()
    assert levels.high_v == pytest.approx(6.0, abs=0.01)
    assert levels.low_v == pytest.approx(-12.0, abs=0.01)
    assert levels.pp_ohm == pytest.approx(1500.0, rel=0.01)
    say(sysfs, 2, 3.29)
    assert pilot.measure().pp_ohm is None
    pilot.set_output(Output(PilotMode.STEADY))
    assert pilot.measure().low_v == pilot.measure().high_v


def test_state_e_needs_the_enable_line(sysfs: Path, gpiod: FakeGpiod) -> None:
    def lines(outputs: dict[str, str], inputs: dict[str, str]) -> Lines:
        return Lines(outputs, inputs, gpiod)

    pilot = LinuxPilot(board(sysfs, enable_line="gpiochip0:17"), lines)
    assert gpiod.values["/dev/gpiochip0", 17] == "active"
    pilot.set_output(Output(PilotMode.OFF))
    assert gpiod.values["/dev/gpiochip0", 17] == "inactive"
    pilot.set_output(Output(PilotMode.STEADY))
    assert gpiod.values["/dev/gpiochip0", 17] == "active"
    pilot.close()
    assert gpiod.released == 1


@pytest.mark.parametrize(
    ("changes", "words"), [({"pwm": "pwmchip7/0"}, "pwmchip7/0"), ({"adc": "iio:device8"}, "iio:device8")]
)
def test_a_missing_board_is_named(sysfs: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DriverError, match=words):
        LinuxPilot(board(sysfs, **changes))


def test_a_board_that_stops_answering(sysfs: Path) -> None:
    pilot = LinuxPilot(board(sysfs))
    pilot.measure()
    (sysfs / "bus/iio/devices/iio:device3/in_voltage0_raw").write_text("")
    with pytest.raises(DriverError, match="does not answer"):
        pilot.measure()


WIRING = Wiring("gpiochip0:1", "gpiochip0:2!", "gpiochip0:3", "gpiochip0:4!", "gpiochip0:5")


def test_chademo_wires_go_in_the_safe_order(gpiod: FakeGpiod) -> None:
    wires = GpioWires(WIRING, lambda o, i: Lines(o, i, gpiod))
    assert gpiod.settings["/dev/gpiochip0", 2]["active_low"] is True
    assert gpiod.settings["/dev/gpiochip0", 4]["direction"] == "input"
    wires.write(WiresOut(d1=True, d2=True, lock=True))
    assert [at for at, _ in gpiod.order] == [3, 1, 2]
    gpiod.order.clear()
    wires.write(WiresOut(d1=False, d2=False, lock=False))
    assert [at for at, _ in gpiod.order] == [2, 1, 3]
    gpiod.values["/dev/gpiochip0", 4] = "active"
    assert wires.read() == WiresIn(k=True, locked=False)


def test_closing_leaves_d1_and_d2_off_and_the_lock_as_it_is(gpiod: FakeGpiod) -> None:
    wires = GpioWires(WIRING, lambda o, i: Lines(o, i, gpiod))
    wires.write(WiresOut(d1=True, d2=True, lock=True))
    wires.close()
    assert [gpiod.values["/dev/gpiochip0", at] for at in (1, 2, 3)] == ["inactive", "inactive", "active"]
    assert gpiod.released == 5


def test_bad_lines_are_named(gpiod: FakeGpiod) -> None:
    with pytest.raises(GpioError, match="'17' is no line"):
        Lines({"d1": "17"}, {}, gpiod)
    with pytest.raises(GpioError, match=r"gpiochip9:1 \(d1\): No such file"):
        Lines({"d1": "gpiochip9:1"}, {}, gpiod)
    with pytest.raises(OSError, match=r"parameter lines.k is empty"):
        GpioWires(Wiring("gpiochip0:1", "gpiochip0:2", "gpiochip0:3", "", "gpiochip0:5"), Lines)
    wires = GpioWires(WIRING, lambda o, i: Lines(o, i, gpiod))
    gpiod.dead = True
    with pytest.raises(OSError, match="does not answer"):
        wires.read()


AC_LINES = OutletLines("gpiochip0:22", "gpiochip0:23", "gpiochip0:24")


def test_edges_hold_the_ac_contactor(gpiod: FakeGpiod) -> None:
    outlet = LinuxOutlet(AC_LINES, lambda o, i: Lines(o, i, gpiod))
    for _ in range(4):
        outlet.switch(True)
    assert gpiod.order == [(22, "active"), (22, "inactive"), (22, "active"), (22, "inactive")]
    outlet.switch(True)
    outlet.switch(False)
    outlet.switch(False)
    assert gpiod.values["/dev/gpiochip0", 22] == "inactive"
    outlet.close()
    assert gpiod.released == 3


def test_a_broken_wire_of_the_residual_current_monitor_trips(gpiod: FakeGpiod) -> None:
    outlet = LinuxOutlet(AC_LINES, lambda o, i: Lines(o, i, gpiod))
    assert outlet.read() == (False, True)
    gpiod.values["/dev/gpiochip0", 24] = "active"
    gpiod.values["/dev/gpiochip0", 23] = "active"
    assert outlet.read() == (True, False)
    gpiod.dead = True
    with pytest.raises(DriverError, match="does not answer"):
        outlet.read()


def test_an_ac_outlet_without_lines_is_told(gpiod: FakeGpiod) -> None:
    with pytest.raises(DriverError, match="AC outlet: line"):
        LinuxOutlet(OutletLines("", "", ""), lambda o, i: Lines(o, i, gpiod))
