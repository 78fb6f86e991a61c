"""One family of conformance tests for everything that speaks to a vehicle. Each protocol inherits it.

A protocol gives a desk (:class:`Vehicle`): a session that can be brought to any of its steps, one step at a time, and
what the station then says. The tests ask the same questions of every protocol: stop, silence, emergency, refusal,
pause, early end, second vehicle, lost link. What a protocol does not have it says with ``None``, and the test is
skipped with that reason.
"""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from robot_charger.common.faults import Code
from robot_charger.words.values import Authorization, Insulation, Link, Purpose, Shutdown


class Vehicle(Protocol):
    """A session of one protocol in injected time."""

    STEPS: tuple[str, ...]  # in order; the first sets the session up, ``LOOP`` is the charge loop
    LOOP: str
    PAUSES: bool

    def go(self, last: str) -> None:
        """An ordinary session up to ``last``, finished."""

    def repeat(self, step: str) -> str:
        """That step once more; the answer's code, empty where none came."""

    def stop(self) -> str:
        """The vehicle ends the transfer; the answer's code."""

    def leave(self, pause: bool = False) -> str:
        """The vehicle ends its session; the answer's code."""

    def hang_up(self) -> None:
        """The vehicle closes the connection."""

    def again(self) -> Vehicle:
        """Another session from its beginning."""

    def intrude(self, step: str) -> str:
        """That step as another vehicle would send it; the answer's code."""

    def set(self, **station: Any) -> None:
        """Change the station's snapshot (bridge.Station). A ``session_stamp_ns`` of 0 is a silent supervisor."""

    def fail_insulation(self, found: int) -> None:
        """The insulation test will end so."""

    def wait(self, seconds: float) -> None: ...

    @property
    def purpose(self) -> int: ...

    @property
    def phase(self) -> int: ...

    @property
    def told_to_stop(self) -> bool:
        """The last answer tells the vehicle that the station wants to end."""

    @property
    def told_emergency(self) -> bool | None:
        """The last answer names the emergency; None where the protocol has no word for it."""

    @property
    def end(self) -> tuple[Code, bool, bool] | None:
        """Code, in order, paused; None while the session goes on."""

    @property
    def patience_s(self) -> float:
        """How long the station waits for the next message now [s]."""


class Conformance:
    """Inherit it and give ``vehicle``."""

    LONGEST_SILENCE_S = 5.0  # in the charge loop

    @pytest.fixture
    def vehicle(self) -> Vehicle:
        raise NotImplementedError

    def test_nothing_is_asked_for_before_its_time(self, vehicle: Any) -> None:
        found = {}
        for step in vehicle.STEPS:
            vehicle.go(step)
            found[step] = vehicle.purpose
            if step == vehicle.LOOP:
                break
        asked = [purpose for purpose in dict.fromkeys(found.values())]
        assert asked == [Purpose.NONE, Purpose.PRECHARGE, Purpose.TRANSFER], found

    def test_the_vehicle_stops_and_leaves(self, vehicle: Any) -> None:
        vehicle.go(vehicle.LOOP)
        assert vehicle.stop() == "OK" and vehicle.purpose == Purpose.NONE
        assert vehicle.leave() == "OK"
        assert vehicle.end == (Code.NONE, True, False)

    @pytest.mark.parametrize("shutdown", [Shutdown.NORMAL, Shutdown.ERROR, Shutdown.EMERGENCY])
    def test_the_station_stops(self, vehicle: Any, shutdown: Shutdown) -> None:
        """The next answer says so, and the vehicle can end in order."""
        vehicle.go(vehicle.LOOP)
        vehicle.set(shutdown=shutdown)
        assert vehicle.repeat(vehicle.LOOP) == "OK" and vehicle.told_to_stop
        if vehicle.told_emergency is not None:
            assert vehicle.told_emergency == (shutdown == Shutdown.EMERGENCY)
        assert vehicle.stop() == "OK" and vehicle.purpose == Purpose.NONE
        assert vehicle.leave() == "OK" and vehicle.end == (Code.NONE, True, False)

    def test_a_stop_before_the_transfer_starts_none(self, vehicle: Any) -> None:
        vehicle.go(vehicle.STEPS[vehicle.STEPS.index(vehicle.LOOP) - 2])  # precharged
        vehicle.set(stop_requested=True)
        assert vehicle.repeat(vehicle.STEPS[vehicle.STEPS.index(vehicle.LOOP) - 1]) == "FAILED"
        assert vehicle.purpose == Purpose.NONE and vehicle.end == (Code.NONE, False, False)

    def test_a_silent_supervisor_stops_the_transfer(self, vehicle: Any) -> None:
        vehicle.go(vehicle.LOOP)
        vehicle.set(session_stamp_ns=0)
        vehicle.repeat(vehicle.LOOP)
        assert vehicle.told_to_stop

    def test_silence_in_the_charge_loop(self, vehicle: Any) -> None:
        vehicle.go(vehicle.LOOP)
        assert 0.0 < vehicle.patience_s <= self.LONGEST_SILENCE_S

    def test_a_refused_authorisation_leads_nowhere(self, vehicle: Any) -> None:
        vehicle.set(authorization=Authorization.REFUSED)
        with pytest.raises(AssertionError):
            vehicle.go(vehicle.LOOP)
        assert vehicle.end == (Code.AUTHORIZATION, False, False)
        assert vehicle.purpose == Purpose.NONE

    def test_an_insulation_fault_leads_nowhere(self, vehicle: Any) -> None:
        vehicle.fail_insulation(Insulation.FAULT)
        with pytest.raises(AssertionError):
            vehicle.go(vehicle.LOOP)
        assert vehicle.end == (Code.INSULATION, False, False)
        assert vehicle.purpose == Purpose.NONE

    def test_a_pause(self, vehicle: Any) -> None:
        if not vehicle.PAUSES:
            pytest.skip("this protocol has no pause")
        vehicle.go(vehicle.LOOP)
        vehicle.stop()
        assert vehicle.leave(pause=True) == "OK"
        assert vehicle.end == (Code.NONE, True, True)

    def test_an_early_end_at_every_step(self, vehicle: Any) -> None:
        for step in vehicle.STEPS:
            other = vehicle.again()
            other.go(step)
            assert other.leave() == "OK", step
            assert other.end == (Code.NONE, True, False), step
            assert other.purpose == Purpose.NONE, step
            assert other.phase >= Link.STOPPING, step

    def test_a_lost_link_at_every_step(self, vehicle: Any) -> None:
        for step in vehicle.STEPS:
            other = vehicle.again()
            other.go(step)
            other.hang_up()
            assert other.end == (Code.LINK_LOST, False, False), step
            assert other.purpose == Purpose.NONE, step

    def test_a_lost_link_after_the_stop_is_no_fault(self, vehicle: Any) -> None:
        vehicle.go(vehicle.LOOP)
        vehicle.stop()
        vehicle.hang_up()
        assert vehicle.end == (Code.NONE, True, False)

    def test_another_vehicle_s_message(self, vehicle: Any) -> None:
        vehicle.go(vehicle.LOOP)
        assert vehicle.intrude(vehicle.LOOP).startswith("FAILED")
        assert vehicle.purpose == Purpose.NONE

    def test_no_power_and_power_again(self, vehicle: Any) -> None:
        """The charge loop goes on at 0 A."""
        vehicle.go(vehicle.LOOP)
        vehicle.set(backend_max_current_a=0.0, backend_max_power_w=0.0)
        for _ in range(3):
            assert vehicle.repeat(vehicle.LOOP) == "OK"
        vehicle.set(backend_max_current_a=100.0, backend_max_power_w=50_000.0)
        assert vehicle.repeat(vehicle.LOOP) == "OK" and vehicle.purpose == Purpose.TRANSFER
