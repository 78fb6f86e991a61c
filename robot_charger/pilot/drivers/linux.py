"""A pilot board on a Linux computer: PWM and IIO of sysfs, and a line that switches the generator off.

The PWM drives a +-12 V amplifier: 100 % is steady +12 V, 0 % steady -12 V. Two ADC channels behind peak detectors
give the positive and the negative peak, a third the voltage of the proximity divider.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robot_charger.common.gpio import GpioError, Lines
from robot_charger.pilot.drivers import DriverError
from robot_charger.pilot.iec61851 import FREQUENCY_HZ
from robot_charger.pilot.logic import Levels, Output
from robot_charger.words.values import PilotMode

PERIOD_NS = round(1e9 / FREQUENCY_HZ)


@dataclass(frozen=True)
class Channel:
    """ADC channel; physical volts = millivolts of IIO / 1000 * gain + bias_v. number -1 = not wired."""

    number: int
    gain: float = 1.0
    bias_v: float = 0.0


@dataclass(frozen=True)
class Board:
    """Where the parts of one pilot board are. ``enable_line`` empty: state E cannot be made, F is put instead."""

    pwm: str = "pwmchip0/0"
    adc: str = "iio:device0"
    high: Channel = Channel(0)
    low: Channel = Channel(1)
    proximity: Channel = Channel(-1)
    proximity_reference_v: float = 3.3
    proximity_pull_ohm: float = 1000.0
    enable_line: str = ""
    sysfs: str = "/sys"


@dataclass(frozen=True)
class OutletLines:
    """Of an AC outlet. ``well`` is on while the residual current monitor is content: a broken wire trips."""

    contactor: str
    closed: str
    well: str


class LinuxOutlet:
    """An AC contactor whose coil is held by a pulse train, behind the safety controller's release.

    Each ``switch(True)`` inverts the line: an amplifier behind it (charge pump, retriggerable) holds the coil while
    edges come, so a process that dies or hangs holds nothing.
    """

    def __init__(self, lines: OutletLines, open_lines: Callable[..., Lines] = Lines) -> None:
        try:
            self._lines = open_lines({"contactor": lines.contactor}, {"closed": lines.closed, "well": lines.well})
        except GpioError as error:
            raise DriverError(f"AC outlet: {error}") from error
        self._level = False

    def switch(self, on: bool) -> None:
        level = on and not self._level
        if not on and not self._level:
            return
        try:
            self._lines.write("contactor", level)
        except GpioError as error:
            raise DriverError(f"AC outlet: {error}") from error
        self._level = level

    def read(self) -> tuple[bool, bool]:
        try:
            return self._lines.read("closed"), not self._lines.read("well")
        except GpioError as error:
            raise DriverError(f"AC outlet: {error}") from error

    def close(self) -> None:
        try:
            self.switch(False)
        finally:
            self._lines.close()


class LinuxPilot:
    """Raises DriverError from every method when the board does not answer."""

    def __init__(self, board: Board, open_lines: Callable[..., Lines] = Lines) -> None:
        self._board = board
        self._output: Output | None = None
        self._files: dict[Path, int] = {}
        self._lines: Lines | None = None
        chip, _, number = board.pwm.partition("/")
        self._pwm = Path(board.sysfs, "class/pwm", chip, f"pwm{number}")
        self._adc = Path(board.sysfs, "bus/iio/devices", board.adc)
        try:
            if not self._pwm.is_dir():
                Path(board.sysfs, "class/pwm", chip, "export").write_text(number)
            if not self._pwm.is_dir():
                raise DriverError(f"PWM {board.pwm} is not there ({self._pwm})")
            if int(self._read(self._pwm / "period")) != PERIOD_NS:
                self._write(self._pwm / "duty_cycle", 0)
                self._write(self._pwm / "period", PERIOD_NS)
            self._scale_mv = float(self._read(self._scale_file("scale")))
            if board.enable_line:
                self._lines = open_lines({"enable": board.enable_line}, {})
            self.set_output(Output(PilotMode.F))
            self._write(self._pwm / "enable", 1)
        except GpioError as error:
            self._forget()
            raise DriverError(f"pilot board: {error}") from error
        except (OSError, ValueError) as error:
            self._forget()
            if isinstance(error, DriverError):
                raise
            raise DriverError(f"pilot board {board.pwm}, {board.adc}: {error}") from error

    def set_output(self, output: Output) -> None:
        if output == self._output:
            return
        share = {PilotMode.STEADY: 1.0, PilotMode.PWM: output.duty}.get(output.mode, 0.0)
        try:
            self._write(self._pwm / "duty_cycle", round(share * PERIOD_NS))
            if self._lines:
                self._lines.write("enable", output.mode is not PilotMode.OFF)
        except OSError as error:
            raise DriverError(f"PWM {self._board.pwm} does not answer: {error}") from error
        self._output = output

    def measure(self) -> Levels:
        board = self._board
        try:
            high_v, low_v = self._volts(board.high), self._volts(board.low)
            pp_ohm = self._proximity() if board.proximity.number >= 0 else None
        except (OSError, ValueError) as error:
            raise DriverError(f"ADC {board.adc} does not answer: {error}") from error
        if self._output is not None and self._output.mode is PilotMode.STEADY:
            low_v = high_v  # a peak detector of the other polarity has nothing to hold
        return Levels(high_v, low_v, pp_ohm)

    def close(self) -> None:
        try:
            self.set_output(Output(PilotMode.F))
        finally:
            self._forget()
            if self._lines:
                self._lines.close()

    def _forget(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _volts(self, channel: Channel) -> float:
        raw = int(self._read(self._adc / f"in_voltage{channel.number}_raw"))
        return raw * self._scale_mv / 1000.0 * channel.gain + channel.bias_v

    def _proximity(self) -> float | None:
        """Resistance to earth below a pull-up, None when open."""
        board = self._board
        volts = self._volts(board.proximity)
        rest_v = board.proximity_reference_v - volts
        if rest_v <= 0.02 * board.proximity_reference_v:
            return None
        return max(0.0, volts) * board.proximity_pull_ohm / rest_v

    def _scale_file(self, name: str) -> Path:
        own = self._adc / f"in_voltage{self._board.high.number}_{name}"
        return own if own.exists() else self._adc / f"in_voltage_{name}"

    def _read(self, path: Path) -> str:
        descriptor = self._files.get(path)
        if descriptor is None:
            descriptor = self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(descriptor, 64, 0).decode().strip()

    @staticmethod
    def _write(path: Path, value: int) -> None:
        path.write_text(str(value))
