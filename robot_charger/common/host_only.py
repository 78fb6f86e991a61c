"""DDS that does not leave this computer, for whoever can publish can move the arm.

ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST promises that, and keeps it by what it looks for: with Jazzy's rmw_fastrtps its
processes still listen on every address, and they take shared memory, whatever FASTDDS_BUILTIN_TRANSPORTS says. Then
root and other users exchange nothing, and a kill leaves segments behind. So where nobody asks for more than LOCALHOST,
a station's processes read config/fastdds.xml instead: UDP, bound to 127.0.0.1. They and processes with LOCALHOST hear
each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

from robot_charger.common.configuration import config_directory

RANGE, PROFILES, RMW = "ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_IMPLEMENTATION"
LOCALHOST, FAST_DDS = "LOCALHOST", "rmw_fastrtps_cpp"


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """What the environment ``given`` needs in addition. Another range, profile or middleware is respected."""
    if given.get(RANGE, LOCALHOST) != LOCALHOST or PROFILES in given:
        return {}
    profile = _profile()
    if given.get(RMW, FAST_DDS) != FAST_DDS or not profile:
        return {RANGE: LOCALHOST}
    return {RANGE: "SUBNET", PROFILES: profile}  # the profile limits it; LOCALHOST would overrule the profile


def _profile() -> str:
    """Path of our profile, empty where it is missing."""
    try:
        profile = config_directory() / "fastdds.xml"
    except FileNotFoundError:
        return ""
    return str(profile) if profile.is_file() else ""


def is_host_only(environment: Mapping[str, str]) -> bool:
    """Processes with this environment keep to this computer."""
    return environment.get(RANGE, "SUBNET") in (LOCALHOST, "OFF") or (
        environment.get(RMW, FAST_DDS) == FAST_DDS and environment.get(PROFILES, "none") == _profile()
    )


def stay(environment: MutableMapping[str, str] = os.environ) -> None:
    """For this process and its children; before rclpy.init()."""
    environment.update(variables(environment))
