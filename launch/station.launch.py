"""The nodes of a charging station, on a station computer with ROS 2 Jazzy:

ros2 launch robot_charger station.launch.py evses:=1,2 config:=/etc/robot_charger

Exit status: 0 after Ctrl-C, 1 when the configuration is refused or no EVSE is left that could be kept in service.
"""

from pathlib import Path

from robot_charger import launching, station

ARGUMENTS = {
    "evses": ("1", "numbers of the EVSEs, comma-separated"),
    "config": ("", "directory of parameter files; empty: the package's own"),
}


def start(context):
    arguments = launching.given(context, ARGUMENTS)
    evses = launching.evses(arguments["evses"])
    config = Path(arguments["config"]) if arguments["config"] else None
    specs = [launching.below(context, spec) for spec in station.nodes(evses, config)]
    if troubles := station.troubles(evses, config, [spec.namespace for spec in specs]):
        raise launching.LaunchRefusedError("\n".join(map(str, troubles)))
    nodes = launching.Nodes(context, station.nodes(evses, config), evses)
    return [*nodes.start(), *launching.arm_description(specs, evses)]


def generate_launch_description():
    return launching.description(ARGUMENTS, start)
