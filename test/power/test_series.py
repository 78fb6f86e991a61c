"""Two groups per EVSE, joined in parallel or in series as each vehicle needs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from power_desk import Desk

from robot_charger.common.faults import Code
from robot_charger.common.parameters import ParameterError
from robot_charger.power import codec
from robot_charger.power.matrix import PARALLEL, SERIES
from robot_charger.power.messages import Reporter
from robot_charger.power.output import Mode
from robot_charger.power.parameters import PowerParameters
from robot_charger.sim.rack.model import Rack
from robot_charger.sim.safety import Controller
from robot_charger.words.values import Purpose


def switched(modules: int = 46, evses: tuple[int, ...] = (1,), **parameters: Any) -> Desk:
    desk = Desk(modules, evses, series_groups=2, series_switched=True, max_voltage_v=1000.0, **parameters)
    desk.run(lambda: all(a == PARALLEL for a in desk.control.bank.arrangement.values()), 1.0)
    return desk


def arrive(desk: Desk, emf_v: float, evse: int = 1) -> None:
    """A vehicle with such a battery; its maximum is 60 V above."""
    desk.emf_v = desk.rack.networks[evse].vehicle.emf_v = emf_v


def leave(desk: Desk, evse: int = 1) -> None:
    desk.allow(Purpose.NONE, evse)
    output = desk.control.channels[evse].output
    desk.run(lambda: output.mode == Mode.DISCHARGE)
    desk.rack.networks[evse].vehicle.contactor = False
    desk.run(lambda: output.mode == Mode.OFF)


@pytest.mark.parametrize("cars", list(itertools.permutations([80.0, 360.0, 800.0])), ids=str)
def test_vehicles_of_every_voltage_one_after_the_other(cars: tuple[float, ...]) -> None:
    desk = switched()
    for emf_v in cars:
        arrive(desk, emf_v)
        desk.charge(100.0)
        assert desk.control.bank.arrangement[1] == desk.rack.arrangement[1] == (SERIES if emf_v > 450.0 else PARALLEL)
        bank = desk.control.bank
        total = 100.0 * desk.rack.arrangement[1]
        assert bank.command_a[bank.enable].sum() == pytest.approx(total, rel=0.03)
        leave(desk)
        desk.number += 1
        session = f"after {emf_v}"
        desk.permits[1]["session_id"] = desk.targets[1]["session_id"] = session
    assert not desk.codes and not desk.rack.short


def test_at_low_voltage_parallel_groups_give_what_series_cannot() -> None:
    def most(emf_v: float) -> float:
        desk = switched(cable_max_current_a=[1000.0])
        arrive(desk, emf_v)
        desk.check_cable()
        limits = Reporter(desk.parameters, desk.control).limits(1)
        assert limits is not None
        return float(limits.max_current_a)

    assert most(360.0) == 920.0 == 46 * 20.0
    assert most(800.0) == 460.0


def test_two_evses_are_joined_apart() -> None:
    desk = switched(46, (1, 2))
    arrive(desk, 360.0, 2)
    desk.charge(50.0, 2)
    arrive(desk, 740.0, 1)
    desk.rack.networks[2].vehicle.emf_v = 360.0
    desk.targets[2]["max_voltage_v"] = 420.0
    desk.charge(50.0, 1)
    assert desk.rack.arrangement == {1: SERIES, 2: PARALLEL}
    assert desk.rack.networks[2].current_a == pytest.approx(50.0, rel=0.03)
    assert not desk.codes and not desk.rack.short


def test_nothing_moves_while_the_output_is_live_and_the_voltage_stays_what_a_module_reaches() -> None:
    desk = switched()
    desk.charge(50.0)
    desk.emf_v = 740.0  # the vehicle says now that it goes up to 800 V
    desk.targets[1]["voltage_v"] = 790.0
    before = desk.control.switch.board.requested  # type: ignore[union-attr]
    desk.run(2.0)
    assert desk.control.switch.board.requested == before and not desk.rack.short  # type: ignore[union-attr]
    assert max(s.setpoint_v for s in desk.history) <= 500.0 and desk.output.voltage_limited
    assert desk.network.max_v < 500.0


def test_a_welded_contactor_between_groups_is_told_and_nothing_is_shorted() -> None:
    desk = switched()
    desk.safety.fault("link-weld", True)
    arrive(desk, 740.0)
    desk.allow(Purpose.INSULATION_TEST, voltage_v=800.0)
    desk.run(3.0)
    assert Code.CONTACTOR_FEEDBACK in desk.codes and not desk.rack.short
    assert desk.output.mode == Mode.OFF and "groups" in desk.output.text
    assert desk.network.max_v < 1.0


def test_groups_that_fall_apart_end_the_output() -> None:
    desk = switched()
    arrive(desk, 740.0)
    desk.charge(50.0)
    desk.safety.fault("link-drop", True)
    assert desk.run(lambda: abs(desk.network.current_a) < 1.0) < 0.1
    desk.run(lambda: not desk.safety.circuits[1].closed)
    assert desk.codes == {Code.CONTACTOR_FEEDBACK, Code.NO_MODULES}


def test_the_safety_controller_shorts_no_group_whatever_it_is_asked_for() -> None:
    """Every order of three requests out of all eight masks, each held for a moment or until the contacts rest."""
    for masks in itertools.product(range(8), repeat=3):
        for cycles in (1, 6):
            controller, rack = Controller([1], switched=True), Rack(4, [1], series=2, switched=True)
            now_s = 0.0
            for number, mask in enumerate(masks):
                for step in range(cycles):
                    now_s += 0.01
                    command = codec.PowerCommand(links=mask, counter=10 * number + step)
                    controller.hear(command.encode(), now_s)
                    controller.step(now_s, {})
                    rack.join(controller.links_closed)
                    assert not rack.short, (masks, cycles)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"series_groups": 1}, "series_groups"),
        ({"matrix__blocks": 2}, "matrix.blocks"),
        ({"evses": [1, 2, 3, 4, 5, 6]}, "5 EVSEs"),
    ],
)
def test_what_cannot_be_switched_is_refused(values: dict[str, Any], names: str) -> None:
    with pytest.raises(ParameterError, match=names):
        PowerParameters(**{"series_switched": True, "series_groups": 2, **values}).check()
