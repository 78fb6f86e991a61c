"""How fast the arm may move so that a hand that it meets feels no more than it may, and how far it goes until it stops.

    python -m robot_charger.robot.speeds

prints both as tables: the second is what ISO 13855 needs for the size of the protective field.

A hand between the tool and something that stands is a spring in series with the compliant mount. The arm moves on for
the reaction time after the force has passed the threshold, and with half of its speed while it brakes. So the force is
``threshold + k x v x (reaction + v / 2a)``. It must stay below what a hand may feel in quasi-static contact: 140 N,
with 75 N/mm for the hand (ISO/TS 15066:2016, tables A.2 and A.3; ISO 10218-2:2025). The field keeps heads out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_charger.robot.description import Tool
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.spatial import Array

FIELD_S = 0.30  # [s] from a breach of the field to the node: two lost bay states at 10 Hz, and the permit's age
HORIZON_TICKS = 2  # ticks from a message to a set-point that counts: one to think, one on the way
APPROACH_M_S = 1.6  # [m/s] speed of a person that walks (ISO 13855:2010, 5)


@dataclass(frozen=True)
class Hand:
    """What limits a contact with a hand. SI units."""

    limit: float  # force that the hand may feel [N]
    hand: float  # stiffness of the hand [N/m]
    reaction: float  # from the force to the first set-point that stops [s]
    braking: float  # deceleration of a stop [m/s^2]

    @classmethod
    def of(cls, p: RobotParameters) -> Hand:
        return cls(p.collision__hand_n, p.collision__hand_n_m, p.collision__reaction_s, p.collision__braking_m_s2)

    def stiffness(self, tool: Tool, direction: Array) -> float:
        """Of mount and hand in series, along a unit vector (3,) in gripper_link's axes [N/m]."""
        mount = 1.0 / float((direction**2) @ (1.0 / tool.stiffness[:3]))
        return 1.0 / (1.0 / mount + 1.0 / self.hand)

    def speed(self, threshold: float, stiffness: float) -> float:
        """Largest speed at which contact is noticed at ``threshold`` [N] and stays within the limit [m/s]."""
        way = (self.limit - threshold) / stiffness
        return self.braking * (math.sqrt(self.reaction**2 + 2.0 * way / self.braking) - self.reaction)

    def force(self, speed: float, threshold: float, stiffness: float) -> float:
        """What the hand feels at most [N]."""
        return threshold + stiffness * speed * (self.reaction + speed / (2.0 * self.braking))

    def stop(self, speed: float, reaction: float | None = None) -> tuple[float, float]:
        """Time and way until the arm stops [s, m], after ``reaction`` (default: that to a force)."""
        wait = self.reaction if reaction is None else reaction
        return wait + speed / self.braking, speed * (wait + speed / (2.0 * self.braking))


def tables(tool: Tool, p: RobotParameters) -> str:
    """Both tables as text."""
    import numpy as np

    c = Hand.of(p)
    lines = [f"hand {c.limit:.0f} N, {c.hand / 1e3:.0f} N/mm; reaction {c.reaction * 1e3:.0f} ms"]
    lines[0] += f"; braking {c.braking:.1f} m/s^2"
    lines.append("motion                 threshold  stiffness   speed")
    for name, threshold, axis in (
        ("free, along the tool", p.collision__free_n, 0),
        ("free, across it", p.collision__free_n, 1),
        ("near, along the tool", p.collision__near_n, 0),
        ("near, across it", p.collision__near_n, 1),
    ):
        k = c.stiffness(tool, np.eye(3)[axis])
        lines.append(f"{name:22} {threshold:6.0f} N {k / 1e3:6.1f} N/mm {c.speed(threshold, k):6.3f} m/s")
    wait = FIELD_S + p.horizon_s + 0.01 * HORIZON_TICKS
    lines.append(f"after a breach of the field (reaction {wait * 1e3:.0f} ms):")
    lines.append("speed     stops after   in        a person at 1.6 m/s comes nearer by")
    for speed in (0.05, 0.1, 0.2, 0.4):
        seconds, way = c.stop(speed, wait)
        nearer = APPROACH_M_S * seconds
        lines.append(f"{speed:.2f} m/s  {seconds:6.2f} s {way * 1e3:8.0f} mm {nearer * 1e3:8.0f} mm")
    return "\n".join(lines)


def main() -> None:
    from robot_charger.robot.description import load_tool

    print(tables(load_tool(), RobotParameters()))


if __name__ == "__main__":
    main()
