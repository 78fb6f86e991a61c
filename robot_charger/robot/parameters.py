"""Parameters of the robot node; the motion logic takes the same object."""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common.parameters import parameter


@dataclass(frozen=True)
class RobotParameters:
    """Defaults fit the arm, tool and plugs of config/arm."""

    evses: list = parameter([1], "EVSEs served; their bays are in bays_file", low=1, high=20)
    bays_file: str = parameter("bays.yaml", "bays, beside the parameter file that names it", file=True)
    arm_urdf: str = parameter("arm/arm.urdf", "arm, beside the parameter file that names it", file=True)
    arm_file: str = parameter("arm/arm.yaml", "tool on the arm, beside the parameter file", file=True)
    connectors_file: str = parameter("arm/connectors.yaml", "plugs, beside the parameter file", file=True)
    camera_file: str = parameter(
        "",
        "camera that looks at the inlets, e.g. arm/camera.yaml; empty: another estimator publishes /robot/inlet_pose",
        file=True,
    )

    memory: str = parameter("", "file that keeps which plug is in which inlet over restarts; empty: none")
    realtime: bool = parameter(True, "run the motion thread under SCHED_FIFO where the system allows")
    prepares: bool = parameter(True, "without a goal, and under a permit, wait before the plug of a vehicle that came")
    attempts: int = parameter(3, "attempts at mating before the plug is brought home", low=1, high=10)
    horizon_s: float = parameter(0.03, "how far ahead a trajectory reaches", unit="s", low=0.02, high=0.2)
    permit_grace_s: float = parameter(
        2.0, "hold this long for a lapsed motion permit, then end the action", unit="s", low=0.0, high=60.0
    )
    attempt_timeout_s: float = parameter(45.0, "longest attempt", unit="s", low=5.0, high=300.0)

    speed__free_m_s: float = parameter(0.40, "gripper in free space", unit="m/s", low=0.01, high=1.0)
    speed__turn_rad_s: float = parameter(1.2, "gripper in free space", unit="rad/s", low=0.05, high=3.0)
    speed__joint_rad_s: float = parameter(1.4, "fastest joint in free space", unit="rad/s", low=0.05, high=3.0)
    speed__near_m_s: float = parameter(0.12, "gripper near an inlet or a holster", unit="m/s", low=0.01, high=0.25)
    speed__touch_m_s: float = parameter(0.020, "plug before it touches", unit="m/s", low=0.002, high=0.05)
    speed__insert_m_s: float = parameter(0.020, "plug in the inlet", unit="m/s", low=0.002, high=0.05)
    acceleration_m_s2: float = parameter(1.2, "gripper", unit="m/s^2", low=0.05, high=5.0)

    contact__distance_m: float = parameter(
        0.10, "a plug or gripper nearer to an inlet than this is in the contact zone", unit="m", low=0.03, high=0.5
    )
    contact__standoff_m: float = parameter(
        0.14, "plug's nose before the inlet between free motion and approach", unit="m", low=0.04, high=0.6
    )

    pose__max_age_s: float = parameter(1.0, "oldest inlet pose that counts", unit="s", low=0.05, high=5.0)
    pose__window_s: float = parameter(4.0, "inlet poses of this time are averaged", unit="s", low=0.1, high=60.0)
    pose__samples: int = parameter(3, "fewest poses for one look", low=1, high=100)
    pose__max_sigma_m: float = parameter(0.03, "largest standard deviation accepted", unit="m", low=0.001, high=0.2)
    pose__moved_m: float = parameter(
        0.025, "inlet shifted by this since the look: the vehicle moved", unit="m", low=0.005, high=0.2
    )

    search__force_n: float = parameter(22.0, "push while searching the opening", unit="N", low=5.0, high=50.0)
    search__speed_m_s: float = parameter(0.030, "nose along the spiral", unit="m/s", low=0.005, high=0.1)
    search__pitch_m: float = parameter(0.005, "distance of the spiral's arms", unit="m", low=0.001, high=0.02)
    search__radius_m: float = parameter(0.020, "spiral's radius for a good estimate", unit="m", low=0.0, high=0.05)
    search__radius_most_m: float = parameter(
        0.032, "spiral's radius is three times the estimate's sigma, at most this", unit="m", low=0.0, high=0.05
    )

    insert__force_n: float = parameter(112.0, "push while inserting", unit="N", low=20.0, high=115.0)
    insert__limit_n: float = parameter(120.0, "largest axial push, else retreat", unit="N", low=20.0, high=125.0)
    lateral_limit_n: float = parameter(
        70.0, "largest force across the axis, else retreat", unit="N", low=10.0, high=150.0
    )
    torque_limit_nm: float = parameter(20.0, "largest torque at the nose, else retreat", unit="Nm", low=2.0, high=60.0)
    withdraw__force_n: float = parameter(118.0, "pull while withdrawing", unit="N", low=50.0, high=140.0)
    withdraw__limit_n: float = parameter(150.0, "largest axial pull, else relax", unit="N", low=50.0, high=150.0)
    tare_limit_n: float = parameter(
        60.0, "a wrench above this before contact is a biased sensor, not a cable", unit="N", low=5.0, high=100.0
    )

    collision__free_n: float = parameter(
        50.0, "unexpected force that stops the arm in free motion", unit="N", low=15.0, high=100.0
    )
    collision__near_n: float = parameter(
        25.0, "the same nearer to an inlet's mouth than near_m", unit="N", low=10.0, high=60.0
    )
    collision__near_m: float = parameter(0.30, "how far from an inlet's mouth that is", unit="m", low=0.1, high=1.0)
    collision__room_m: float = parameter(
        0.015,
        "around the estimated mouth contact is expected, plus three times the estimate's sigma, 25 mm at most",
        unit="m",
        low=0.005,
        high=0.025,
    )
    collision__hand_n: float = parameter(
        140.0, "force that a hand may feel (ISO/TS 15066, quasi-static)", unit="N", low=50.0, high=140.0
    )
    collision__hand_n_m: float = parameter(
        75000.0, "stiffness of a hand (ISO/TS 15066)", unit="N/m", low=10000.0, high=200000.0
    )
    collision__reaction_s: float = parameter(
        0.03, "from a force to the set-point that stops the arm", unit="s", low=0.01, high=0.2
    )
    collision__braking_m_s2: float = parameter(
        5.0, "deceleration of an arm whose set-point stops", unit="m/s^2", low=0.5, high=20.0
    )
    collision__wait_s: float = parameter(2.0, "after an obstacle, before the second look", unit="s", low=0.0, high=60.0)
    collision__second: bool = parameter(True, "after an obstacle, look again and try once more; false: a person first")
    leave__force_n: float = parameter(5.0, "a force that the arm has left behind", unit="N", low=2.0, high=15.0)
    leave__time_s: float = parameter(
        1.5, "longest time to leave a force; then the arm goes limp", unit="s", low=0.3, high=2.0
    )

    follow__stroke_m: float = parameter(
        0.06, "follows a mated plug this far, with zero commanded force", unit="m", low=0.0, high=0.2
    )

    seat__depth_tolerance_m: float = parameter(
        0.015, "seated plug's depth by kinematics against the connector's", unit="m", low=0.002, high=0.03
    )
    seat__lateral_tolerance_m: float = parameter(
        0.025, "seated plug's distance from the estimated axis", unit="m", low=0.002, high=0.05
    )
