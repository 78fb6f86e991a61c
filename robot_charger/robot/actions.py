"""The actions: connect, release and disconnect, and the pieces that they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from robot_charger.robot.contact import Contact
from robot_charger.robot.description import Bay, Connector
from robot_charger.robot.errors import (
    Drifted,
    ForceLimit,
    NoPose,
    Obstacle,
    OutOfReach,
    PlugHeld,
    RobotError,
    Stuck,
    ToolError,
    WrenchError,
)
from robot_charger.robot.feel import NO_WRENCH
from robot_charger.robot.planner import HOLSTER_PULL_M, back
from robot_charger.robot.sight import Sight
from robot_charger.robot.spatial import difference, inverse, length, local
from robot_charger.robot.state import PERIOD, Arm, Engagement, Equipment, Mode, Part, Sequence
from robot_charger.robot.ways import Ways
from robot_charger.words.values import Zone

TOOL_TIME = 2.0  # [s] longest time to open or close the gripper
TRUST_TIME = 0.05  # [s] of rest before the wrench is believed
HUNG_M, HUNG_RAD = 0.02, 0.2  # a plug so near to its holster's pose hangs in it
CLEAR_M = 0.03  # [m] the arm draws back from an obstacle
GRASP_STANDOFF = 0.15  # [m] of the empty gripper before a plug


class Actions(Part):
    """Sequences of whole actions."""

    def __init__(self, equipment: Equipment, arm: Arm, sight: Sight, ways: Ways, contact: Contact) -> None:
        super().__init__(equipment, arm)
        self.sight, self.ways, self.contact = sight, ways, contact

    def grip_to(self, closed: bool) -> Sequence:
        """Command the gripper and wait for its sensor. Raises ToolError.

        It opens on a held plug only where the inlet or the holster holds it: elsewhere the plug would fall.
        """
        if not closed and not self.may_open():
            raise PlugHeld("the gripper stays closed: its plug is neither in the inlet nor in its holster")
        self.arm.closing = closed
        if not closed:
            self.contact.collision.nothing_held()
        self.arm.load_known = False
        for tick in range(round(TOOL_TIME / PERIOD)):
            if tick % 20 == 0:
                self.arm.grip = closed
            yield
            if self.arm.senses.gripper_closed == closed and tick > 5:
                break
        else:
            raise ToolError(f"the gripper does not {'close' if closed else 'open'}")
        yield from self.ways.wait(0.15)
        self.arm.closing, self.arm.load_known = False, not closed
        if closed and not self.arm.senses.plug_present:
            raise ToolError("the gripper closed on nothing")

    def may_open(self) -> bool:
        """The hand is empty, or something else holds its plug."""
        arm, senses = self.arm, self.arm.senses
        if not (senses.gripper_closed and senses.plug_present):
            return True
        for bay in self.site.bays.values():
            away = difference(bay.holster, arm.gripper)
            if length(away[:3]) < HUNG_M and length(away[3:]) < HUNG_RAD:
                return True
        return arm.connector is not None and self.contact.plug_held_by_inlet(arm.connector)

    def away(self, bay: Bay, plug: Connector) -> Sequence:
        """From wherever the last action left the arm to the bay's clear pose."""
        holding = self.arm.senses.plug_present and self.arm.senses.gripper_closed
        if self.arm.in_contact_zone and holding:
            yield from self.back_off(bay, plug)
        elif self.arm.in_contact_zone:
            self.arm.need = Zone.CONTACT
            yield from self.ways.line(back(self.arm.gripper, GRASP_STANDOFF), self.parameters.speed__near_m_s)
        for other in self.site.bays.values():
            x, y, z = local(other.holster, self.arm.gripper[:3, 3])
            if -HOLSTER_PULL_M - 0.01 < x < 0.02 and math.hypot(y, z) < 0.06:
                self.arm.need = Zone.FREE
                yield from self.ways.line(back(other.holster, HOLSTER_PULL_M), self.parameters.speed__near_m_s)
                if other is not bay:  # round what hangs between the two
                    yield from self.ways.to_clear(other)
                    yield from self.ways.joints(self.site.park)
        self.arm.need = Zone.FREE
        yield from self.ways.to_clear(bay)

    def back_off(self, bay: Bay, plug: Connector) -> Sequence:
        """After a failed attempt: out along the axis with limited force, then to the standoff."""
        self.arm.need, self.arm.moving = Zone.CONTACT, Mode.RETREAT
        self.arm.attempt_began = self.arm.clock
        for last in (False, False, True):
            yield from self.contact.leave()
            self.contact.take_up()
            try:
                yield from self.contact.pull_out(bay, plug)
                break
            except ForceLimit:  # it gave way too slowly: leave the force, and on
                if last:
                    raise
        yield from self.to_standoff(plug)

    def to_standoff(self, plug: Connector) -> Sequence:
        assert self.arm.inlet is not None
        nose = np.array([-self.parameters.contact__standoff_m, 0, 0, 0, 0, 0])
        yield from self.ways.line(self.contact.flange(nose), self.parameters.speed__near_m_s * 1.5)
        self.arm.need = Zone.FREE
        yield from self.contact.weigh()

    def fetch(self, bay: Bay, plug: Connector) -> Sequence:
        """Take the plug out of its holster, unless it is in the hand."""
        p = self.parameters
        if self.arm.senses.gripper_closed and self.arm.senses.plug_present:
            return
        yield from self.grip_to(False)
        yield from self.ways.line(back(bay.holster, HOLSTER_PULL_M))
        yield from self.ways.line(bay.holster, p.speed__near_m_s)
        yield from self.ways.settle(bay.holster)
        yield from self.grip_to(True)
        yield from self.ways.line(back(bay.holster, HOLSTER_PULL_M), p.speed__near_m_s * 1.5)
        yield from self.contact.weigh()

    def bring_home(self, bay: Bay) -> Sequence:
        """Hang the plug into its holster."""
        p = self.parameters
        self.arm.need, self.arm.moving = Zone.FREE, Mode.MOVING
        before = back(bay.holster, HOLSTER_PULL_M)
        yield from self.ways.line(before)
        yield from self.ways.line(bay.holster, p.speed__near_m_s)
        yield from self.ways.settle(bay.holster, 0.006)
        yield from self.grip_to(False)
        if not self.arm.senses.holster_occupied:
            raise ToolError("the plug does not hang in its holster")
        yield from self.ways.line(before, p.speed__near_m_s * 1.5)

    def park(self, bay: Bay) -> Sequence:
        self.arm.need, self.arm.moving = Zone.FREE, Mode.MOVING
        yield from self.ways.to_clear(bay)
        yield from self.ways.joints(self.site.park)
        self.arm.moving = Mode.PARKED

    def mate(self, bay: Bay, plug: Connector) -> Sequence:
        """One attempt: from the clear pose or the standoff to a seated plug."""
        p = self.parameters
        self.arm.attempt_began = self.arm.clock
        self.arm.need, self.arm.moving = Zone.FREE, Mode.APPROACH
        inlet = yield from self.sight.look(bay)
        self.planner.check_inlet(bay, plug, inlet)
        self.arm.tare, self.arm.sag = NO_WRENCH, self.contact.feeling.sagged(NO_WRENCH)
        yield from self.ways.line(self.contact.flange(np.array([-p.contact__standoff_m, 0, 0, 0, 0, 0])))
        yield from self.contact.zero_wrench()
        inlet = yield from self.sight.look(bay)
        self.arm.need = Zone.CONTACT
        self.sight.check_moved(bay)
        yield from self.ways.line(self.contact.flange(np.array([-0.018, 0, 0, 0, 0, 0])), p.speed__near_m_s)
        self.contact.take_up()
        if self.arm.senses.end_stop:
            raise ToolError("the end-stop is closed before the plug is in: it is stuck")
        while self.arm.touch.push < 10.0 and self.arm.touch.x < 0.8 * plug.depth:
            self.contact.push_on(p.speed__touch_m_s, give=False)
            yield from self.contact.tick(bay)
            self.sight.check_moved(bay)
        before = -self.arm.touch.x
        if before > self.contact.collision.room():
            yield from self.contact.leave()
            if self.arm.drift > 0.0:
                raise Drifted(f"the wrench has drifted by {self.arm.drift:.0f} N")
            raise Obstacle(f"contact {before * 1e3:.0f} mm before the mouth is not the inlet's face")
        yield from self.contact.search(bay, plug)
        yield from self.contact.insert(bay, plug)

    def go_before(self, bay: Bay, plug: Connector) -> Sequence:
        """To where a plug is taken from, hand open."""
        yield from self.away(bay, plug)
        yield from self.grip_to(False)
        yield from self.ways.line(back(bay.holster, HOLSTER_PULL_M))
        self.arm.moving = Mode.PARKED

    def go_home(self, bay: Bay, plug: Connector) -> Sequence:
        yield from self.away(bay, plug)
        yield from self.park(bay)

    def careful(self, action: Callable[[], Sequence]) -> Sequence:
        """An action among people: what it meets it draws back from, looks again, and tries once more."""
        yield from self.trust()
        try:
            yield from self._leaving(action())
            return
        except Obstacle as first:
            if not self.parameters.collision__second:
                raise
            self.arm.text = str(first)
        yield from self.ways.wait(self.parameters.collision__wait_s)
        self.sight.forget_poses(self.arm.bay)  # one new look
        yield from self._leaving(action())

    def _leaving(self, action: Sequence) -> Sequence:
        """``action``; whatever ends it, no force stays on the tool."""
        try:
            yield from action
        except RobotError as error:
            met = isinstance(error, Obstacle)
            if met or self.contact.pressed:
                yield from self.contact.leave()
            if met and not self.arm.limp:
                yield from self._clear_of()
            raise

    def _clear_of(self) -> Sequence:
        """A little back along the tool's axis, away from what was met. A second contact there ends it."""
        self.arm.leaving = True
        try:
            way = self.ways.line(back(self.kinematics.forward(self.arm.q), CLEAR_M), self.parameters.speed__touch_m_s)
            for _ in way:
                if self.contact.pressed:
                    return
                yield
        except OutOfReach:
            pass
        finally:
            self.arm.leaving = False

    def trust(self) -> Sequence:
        """Before anything moves: the wrench reads what an arm at rest should feel. Raises WrenchError."""
        yield from self.ways.wait(TRUST_TIME)
        arm, p, collision = self.arm, self.parameters, self.contact.collision
        if not collision.holds():
            collision.nothing_held()
            force, most = collision.unexpected(), p.collision__near_n
            if force > most and not arm.in_contact_zone:
                raise WrenchError(f"the wrench reads {force:.0f} N with an empty hand at rest, at most {most:.0f} N")
        elif not arm.in_contact_zone:
            yield from self.contact.weigh()
        arm.trusted = True

    def connect(self, bay: Bay, plug: Connector) -> Sequence:
        p = self.parameters
        self.arm.inlet = self.arm.inlet if self.arm.in_contact_zone else None
        if self.arm.inlet is not None:
            yield from self.away(bay, plug)
        inlet = yield from self.sight.look(bay)
        self.planner.check_inlet(bay, plug, inlet)
        if not self.ways.is_before(bay):
            yield from self.away(bay, plug)
        yield from self.fetch(bay, plug)
        failure: RobotError | None = None
        for attempt in range(1, p.attempts + 1):
            self.arm.attempt = attempt
            try:
                yield from self.mate(bay, plug)
                return
            except Obstacle:
                raise  # no way home past a person: see careful()
            except RobotError as error:
                if error.stay:
                    raise
                failure = error
            if self.arm.need == Zone.CONTACT:
                yield from self.back_off(bay, plug)
            if not failure.again:
                break
        self.arm.moving = Mode.RETREAT
        yield from self.ways.line(bay.clear)
        yield from self.bring_home(bay)
        yield from self.park(bay)
        assert failure is not None
        raise failure

    def release(self, bay: Bay, plug: Connector) -> Sequence:
        engaged = self.arm.engaged[bay.number]
        self.arm.moving = Mode.MATED
        self.arm.need = Zone.CONTACT
        if self.arm.senses.gripper_closed:
            self.arm.inlet, self.arm.face = engaged.inlet, engaged.face
            self.contact.take_up()
            with suppress(ForceLimit):  # a vehicle that just moves pulls at the hand: to let go is the way out
                yield from self.contact.relax(bay)
            with suppress(NoPose):  # it may have sunk or risen since the look
                self.arm.inlet = self.sight.fused(bay, newest_only=True)
            engaged = self.arm.engaged[bay.number] = replace(
                engaged, inlet=self.arm.inlet, face=self.arm.face, grip=self.arm.gripper.copy(), earlier=engaged
            )
            if plug.held:
                self.arm.bound, self.arm.moving = True, Mode.FOLLOWING
                return
            yield from self.grip_to(False)
        self.arm.tare, self.arm.sag = np.zeros(6), np.eye(4)
        yield from self.ways.line(back(engaged.grip, GRASP_STANDOFF), self.parameters.speed__near_m_s)
        self.arm.need = Zone.FREE
        yield from self.ways.line(bay.clear)
        self.arm.moving = Mode.RELEASED

    def disconnect(self, bay: Bay, plug: Connector) -> Sequence:
        holding = self.arm.senses.gripper_closed and self.arm.senses.plug_present
        if self.arm.senses.holster_occupied and len(self.parameters.evses) == 1:
            self.arm.engaged.pop(bay.number, None)  # the only plug hangs in its holster: a person brought it home
        if not holding and bay.number not in self.arm.engaged and self.arm.senses.holster_occupied:
            yield from self.go_home(bay, plug)
            return
        if holding and self.arm.inlet is None:
            yield from self.find_out(bay)
        failure: RobotError | None = None
        for attempt in range(1, self.parameters.attempts + 1):
            self.arm.attempt = attempt
            try:
                if not (self.arm.senses.gripper_closed and self.arm.senses.plug_present):
                    yield from self.grasp(bay, plug)
                self.arm.grasped = True
                self.arm.attempt_began = self.arm.clock
                if self.arm.inlet is not None and self.arm.in_contact_zone:
                    self.arm.need, self.arm.moving = Zone.CONTACT, Mode.WITHDRAW
                    self.contact.take_up()
                    yield from self.contact.pull_out(bay, plug)
                    yield from self.to_standoff(plug)
                failure = None
                break
            except (Stuck, ToolError, ForceLimit) as error:
                failure = error
                if isinstance(error, ForceLimit):
                    yield from self.contact.leave()
                if isinstance(error, ForceLimit) and self.may_open():
                    yield from self.grip_to(False)  # gripped askew while the inlet holds it: taken anew
        if failure is not None:
            yield from self.leave_plug(bay)
            raise failure
        yield from self.ways.line(bay.clear)
        yield from self.bring_home(bay)
        yield from self.park(bay)

    def find_out(self, bay: Bay) -> Sequence:
        """After a restart with a plug in the hand: is it in an inlet? Raises NoPose when it is seated but not seen."""
        if not self.arm.senses.occupied:
            return
        try:
            yield from self.sight.look(bay)
        except NoPose:
            if self.arm.senses.end_stop:
                raise

    def grasp(self, bay: Bay, plug: Connector) -> Sequence:
        """Take hold of the plug in the inlet, shifted as the vehicle has shifted since."""
        p = self.parameters
        self.arm.moving, self.arm.need = Mode.GRASP, Zone.FREE
        known = engaged = self.arm.engaged.get(bay.number)
        if known is not None and self.arm.attempt > 1:
            engaged = known.earlier  # None at last: then where the inlet says that a seated plug is
        try:
            yield from self.sight.look(bay)
            seen = self.sight.fused(bay, newest_only=True)
        except NoPose:
            if known is None:
                raise
            engaged, seen = known, known.inlet
        if engaged is None:  # as after a restart
            engaged = Engagement(seen, 0.0, back(seen, plug.nose - plug.depth), plug)
        shift = inverse(engaged.inlet) @ seen
        if length(shift[:3, 3]) > 0.003:
            grip = seen @ inverse(engaged.inlet) @ engaged.grip
            engaged = replace(engaged, inlet=seen, grip=grip)
        self.arm.engaged[bay.number] = engaged
        self.arm.inlet, self.arm.face = engaged.inlet, engaged.face
        self.arm.tare, self.arm.sag = np.zeros(6), np.eye(4)
        yield from self.away(bay, plug)
        yield from self.grip_to(False)
        yield from self.ways.line(back(engaged.grip, GRASP_STANDOFF))
        yield from self.contact.zero_wrench()
        self.arm.sag = np.eye(4)
        self.arm.need = Zone.CONTACT
        yield from self.ways.line(engaged.grip, p.speed__near_m_s * 0.6)
        yield from self.ways.settle(engaged.grip)
        yield from self.grip_to(True)
        self.arm.base, self.arm.base_at = engaged.base, engaged.base_at  # until the plug hangs free and is weighed

    def leave_plug(self, bay: Bay) -> Sequence:
        """Let go of a plug that does not come, and stand clear."""
        self.arm.moving = Mode.RETREAT
        yield from self.contact.leave()
        if self.arm.senses.gripper_closed:
            yield from self.grip_to(False)
        self.arm.tare, self.arm.sag = np.zeros(6), np.eye(4)
        if self.arm.in_contact_zone:
            yield from self.ways.line(back(self.arm.gripper, GRASP_STANDOFF), self.parameters.speed__near_m_s)
        self.arm.need = Zone.FREE
        yield from self.ways.line(bay.clear)
        self.arm.moving = Mode.RELEASED
