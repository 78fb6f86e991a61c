"""A whole charging station without hardware, on a computer with ROS 2 Jazzy: its nodes, every simulator, and vehicles.

ros2 launch robot_charger simulation.launch.py protocol:=iso15118-20 sessions:=2

Ends by itself after the last session. Exit status: 0 when every session completed and the books agree, else 1.
"""

from robot_charger import launching

ARGUMENTS = {
    "evses": ("1", "numbers of the EVSEs, comma-separated"),
    "sessions": ("1", "of the whole station, then the launch ends; 0: no vehicle comes, until Ctrl-C"),
    "protocol": ("iso15118-2", "of the vehicles: din, iso15118-2, iso15118-20[-bpt], acdp[-bpt], chademo[-v2x] or ac"),
    "ocpp": ("2.0.1", "version: 1.6, 2.0.1 or 2.1"),
    "modules": ("46", "power modules of 3.3 kW"),
    "seed": ("0", "of parking poses and vehicles"),
    "target_soc": ("", "state of charge at which a vehicle stops [%]; empty: after 15 s"),
    "interface": ("", "network interface for V2G where private namespaces are refused"),
    "config": ("", "directory of parameter files; empty: the package's own"),
}  # fmt: skip


def start(context):
    a = launching.given(context, ARGUMENTS)
    wishes = {name: a[name] for name in ("protocol", "ocpp", "interface", "config")}
    wishes |= {name: launching.number(name, a[name]) for name in ("modules", "seed")}
    wishes |= {"evses": launching.evses(a["evses"])}
    wishes |= {"target_soc": launching.number("target_soc", a["target_soc"], float)} if a["target_soc"] else {}
    return launching.simulation(context, wishes, launching.number("sessions", a["sessions"]))


def generate_launch_description():
    return launching.description(ARGUMENTS, start)
