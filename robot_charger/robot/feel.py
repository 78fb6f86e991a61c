"""What the arm feels: from joint angles and wrench to the plug's nose in the inlet's frame and the forces on it."""

from __future__ import annotations

import math

import numpy as np

from robot_charger.robot.spatial import Array, from_vector, local
from robot_charger.robot.state import Part, Senses, Touch

NO_TORQUE, NO_WRENCH = np.zeros(3), np.zeros(6)
GRAVITY = 9.81  # [m/s^2]


def torque_ahead(wrench: Array, distance: float) -> tuple[float, float, float]:
    """Torque of a wrench (6,) about the point ``distance`` ahead on its x axis [Nm]."""
    _, y, z, rx, ry, rz = wrench.tolist()
    return rx, ry + distance * z, rz - distance * y


class Feeling(Part):
    """Joint angles and wrench of each tick, turned into ``arm.touch``."""

    def feel(self, senses: Senses) -> None:
        wrench = senses.wrench
        if wrench is None:
            wrench = np.zeros(6)
        elif (readings := wrench.tolist()) != self.arm.last_wrench:
            self.arm.changed_at, self.arm.last_wrench = senses.now - senses.wrench_age, readings
        if senses.q is None:
            return
        bare = self.kinematics.forward(senses.q)
        self.arm.gripper = bare @ self.deflection(wrench + self.carried(bare))
        force = wrench - self.arm.tare
        touch = Touch(push=-float(force[0]), side=force[1:3], torque=NO_TORQUE)
        self.arm.in_contact_zone = False
        inlet, plug = self.arm.inlet, self.arm.connector
        if inlet is not None and plug is not None:
            arm = self.site.tool.wrench_distance + plug.nose
            touch.torque = np.array(torque_ahead(force, arm))
            touch.x, y, z = local(inlet, self.arm.gripper[:3, 3] + plug.nose * self.arm.gripper[:3, 0])
            touch.depth, touch.across, touch.lateral = touch.x - self.arm.face, (y, z), math.hypot(y, z)
            limit = self.parameters.contact__distance_m
            engaged = self.arm.engaged.get(self.arm.bay)
            if senses.plug_present and senses.gripper_closed:
                self.arm.in_contact_zone = touch.x > -limit and touch.lateral < 0.25
            elif engaged is not None:
                x, y, z = local(engaged.grip, self.arm.gripper[:3, 3])
                self.arm.in_contact_zone = x > -limit and math.hypot(y, z) < 0.25
        self.arm.touch = touch

    def carried(self, pose: Array) -> Array:
        """Weight of the plug in the hand as a wrench (6,) at the sensor, in the axes of gripper_link at ``pose``.

        The arm's driver takes it out of what it reports (payload); the mount bends under it all the same.
        """
        plug, senses = self.arm.connector, self.arm.senses
        if plug is None or not (senses.gripper_closed and senses.plug_present):
            return NO_WRENCH
        x, y, z = (-GRAVITY * plug.mass * pose[2, :3]).tolist()
        arm = self.site.tool.wrench_distance + plug.centre
        return np.array((x, y, z, 0.0, -arm * z, arm * y))

    def sagged(self, tare: Array) -> Array:
        """Deflection of the mount in free space under the plug and the cable's ``tare`` (6,)."""
        return self.deflection(tare + self.carried(self.kinematics.forward(self.arm.q)))

    def deflection(self, wrench: Array) -> Array:
        """How far the compliant mount gives way: pose of the loaded gripper_link in the unloaded one."""
        tool = self.site.tool
        centre = tool.compliance_centre
        x, y, z, _, _, _ = wrench.tolist()
        rx, ry, rz = torque_ahead(wrench, tool.wrench_distance + centre)
        kx, ky, kz, krx, kry, krz = tool.stiffness.tolist()
        pose = from_vector((x / kx, y / ky, z / kz, rx / krx, ry / kry, rz / krz))
        pose[:3, 3] -= centre * pose[:3, 0]  # turned about the centre
        pose[0, 3] += centre
        return pose
