"""The connector's hard wires: digital lines on a station, the simulated vehicle's signals on a desk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from robot_charger.common.gpio import GpioError
from robot_charger.common.wires import WireEnd
from robot_charger.gbt.drivers import DriverError
from robot_charger.gbt.drivers.lines import GpioWires, Wiring
from robot_charger.gbt.drivers.simulated import SimulatedWires
from robot_charger.gbt.model import WiresIn, WiresOut

WIRING = Wiring("gpiochip0:1", "gpiochip0:2", "gpiochip0:3", "gpiochip0:4!")


class Board:
    """Lines that remember what was written, in order."""

    def __init__(self, outputs: Mapping[str, str], inputs: Mapping[str, str]) -> None:
        self.specs = {**outputs, **inputs}
        self.written: list[tuple[str, bool]] = []
        self.levels = dict.fromkeys(inputs, False)
        self.dead = self.closed = False

    def write(self, name: str, on: bool) -> None:
        if self.dead:
            raise GpioError(f"line {name} does not answer")
        self.written.append((name, on))

    def read(self, name: str) -> bool:
        if self.dead:
            raise GpioError(f"line {name} does not answer")
        return self.levels[name]

    def close(self) -> None:
        self.closed = True


def driver() -> tuple[GpioWires, Board]:
    boards: list[Board] = []

    def open_lines(outputs: Mapping[str, str], inputs: Mapping[str, str]) -> Board:
        boards.append(Board(outputs, inputs))
        return boards[0]

    return GpioWires(WIRING, open_lines), boards[0]  # type: ignore[arg-type]


def test_the_lock_closes_before_the_auxiliary_supply_and_opens_after_it() -> None:
    wires, board = driver()
    wires.write(WiresOut(auxiliary=True, lock=True))
    assert board.written == [("lock", True), ("auxiliary", True)]
    board.written.clear()
    wires.write(WiresOut())
    assert board.written == [("auxiliary", False), ("lock", False)]
    wires.write(WiresOut())
    assert len(board.written) == 2, "what did not change is not written again"


def test_inputs_are_read_by_name() -> None:
    wires, board = driver()
    board.levels.update(plugged=True)
    assert wires.read() == WiresIn(plugged=True, locked=False)
    assert board.specs["lock_feedback"] == "gpiochip0:4!"


def test_closing_leaves_the_lock_as_it_is() -> None:
    wires, board = driver()
    wires.write(WiresOut(auxiliary=True, lock=True))
    board.written.clear()
    wires.close()
    assert board.written == [("lock", True), ("auxiliary", False)] or ("auxiliary", False) in board.written
    assert ("lock", False) not in board.written and board.closed


def test_a_missing_line_and_a_dead_board_are_named() -> None:
    with pytest.raises(DriverError, match=r"lines.plugged is empty"):
        GpioWires(Wiring("gpiochip0:1", "gpiochip0:2", "", "gpiochip0:4"))
    wires, board = driver()
    board.dead = True
    with pytest.raises(DriverError, match="GB/T wires: line plugged does not answer"):
        wires.read()
    with pytest.raises(DriverError, match="GB/T wires: line"):
        wires.write(WiresOut(lock=True))


def test_the_simulated_plug_is_in_at_4_v_and_out_when_the_vehicle_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wires = SimulatedWires(1, tmp_path)
    vehicle = WireEnd("vehicle1", tmp_path)
    assert wires.read() == WiresIn()
    heard = WireEnd("gbt1x", tmp_path)  # somebody else's end changes nothing
    for signals, expected in (
        ({"cc1_v": 4.0, "lock_feedback": True}, WiresIn(True, True)),
        ({"cc1_v": 6.0, "lock_feedback": True}, WiresIn(False, True)),
        ({"cc1_v": "4", "lock_feedback": False}, WiresIn()),
        ({}, WiresIn()),
    ):
        wires._wire._take(_datagram(signals))
        assert wires.read() == expected
    wires.write(WiresOut(auxiliary=True, lock=True))
    monkeypatch.setattr(wires._wire, "age_s", lambda peer: 0.6)
    assert wires.read() == WiresIn()
    for end in (vehicle, heard):
        end.close()
    wires.close()


def _datagram(signals: Mapping[str, object]) -> bytes:
    import json

    from robot_charger.common.clock import now_ns

    return json.dumps({"from": "vehicle1", "t": now_ns(), "signals": signals}).encode()
