"""``robot-charger``: the demo, the station's processes, and the tools."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robot_charger import __version__

if TYPE_CHECKING:
    from robot_charger.station import DeskOptions

PROTOCOLS = (
    "iso15118-2",
    "din",
    "iso15118-20",
    "iso15118-20-bpt",
    "acdp",
    "acdp-bpt",
    "chademo",
    "chademo-v2x",
    "gbt",
    "ac",
)
MODULE_PROTOCOLS = ("ek3", "canopen", "modbus", "infypower", "uugreen", "winline")
OCPP_VERSIONS = ("1.6", "2.0.1", "2.1")
FAULTS = (
    "vehicle-gone",
    "isolation",
    "isolation-charging",
    "self-test",
    "csms-gone",
    "csms-absent",
    "emergency-stop",
    "module-dead",
    "robot-jam",
    "overdraw",
    "ventilation",
    "residual-current",
)
AC_FAULTS = ("overdraw", "ventilation", "residual-current")
DC_FAULTS = ("isolation", "isolation-charging", "self-test", "module-dead")


# Commands that live elsewhere: loaded when called, so that --help and the others start at once.
ELSEWHERE = {
    "exi": "robot_charger.v2g.exi.cli:exi",
    "pki": "robot_charger.v2g.pki:command",
    "queue": "robot_charger.backend.set_aside:command",
    **{
        name: f"robot_charger.operator.commands:{name}"
        for name in ("doctor", "permit", "record", "replay", "report", "watch")
    },
}


class Commands(click.Group):
    """A group that also knows the commands of ELSEWHERE."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *ELSEWHERE})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in ELSEWHERE:
            return super().get_command(context, name)
        module, attribute = ELSEWHERE[name].split(":")
        return getattr(importlib.import_module(module), attribute)


class Impossible(click.ClickException):
    """Options that do not go together: one line, exit status 2."""

    exit_code = 2


def impossible(simulation: DeskOptions, fault: str) -> str:
    """Why these options of the demo do not go together, empty when they do."""
    from robot_charger import station
    from robot_charger.common.plc_link import LinkError, link_local_address

    o, modules = simulation, f"--modules {simulation.modules}"
    if o.pnc and o.protocol != "iso15118-2":
        return f"--pnc is not for {o.protocol}: only iso15118-2 has it here"
    if o.pnc and not o.tls:
        return "--pnc needs --tls: a contract is only shown over TLS"
    if o.tls and (o.on_can or o.protocol in ("din", "ac")):
        return f"--tls is not for {o.protocol}: it has no TLS"
    if o.exports and o.target_soc is not None:
        return f"--target-soc is not for {o.protocol}: its vehicle gives back what it took"
    if o.modules < len(o.evses):
        return f"{modules} is too few for --evses {len(o.evses)}: at least one each"
    if o.module_protocol == "modbus" and o.modules > station.MODBUS_UNITS:
        return f"{modules} is too many for --module-protocol modbus: at most {station.MODBUS_UNITS} on its line"
    if fault == "module-dead" and o.modules == len(o.evses):
        return f"--fault module-dead needs more than {modules}: nothing would be left to charge with"
    if fault in (DC_FAULTS if o.protocol == "ac" else AC_FAULTS):
        return f"--fault {fault} is not for {o.protocol}"
    if o.engine == "gazebo" and len(o.evses) > 1:
        return f"--engine gazebo has one bay, not --evses {len(o.evses)}"
    if o.engine == "gazebo" and o.camera:
        return "--camera is not for --engine gazebo: nothing is rendered there"
    if o.engine == "gazebo" and fault == "robot-jam":
        return "--fault robot-jam is not for --engine gazebo: nothing lies in its sockets"
    if o.engine == "gazebo":
        from robot_charger.sim.arm.gazebo_classic import NoGazeboError, server

        try:
            server()
        except NoGazeboError as error:
            return f"--engine gazebo: {error}"
    if o.interface and (o.on_can or o.protocol == "ac"):
        return f"--interface is not for {o.protocol}: there is no V2G link"
    if o.interface and len(o.evses) > 1:
        return f"--interface carries one vehicle, not --evses {len(o.evses)}: discovery has one port there"
    if o.interface:
        try:
            link_local_address(o.interface)
        except LinkError as error:
            return f"--interface: {error}"
    return ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robot-charger")
def main() -> None:
    """A DC fast-charging station whose robot plugs the vehicle in."""


@main.command()
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="iso15118-2", show_default=True)
@click.option("--ocpp", type=click.Choice(OCPP_VERSIONS), default="2.0.1", show_default=True)
@click.option("--tls", is_flag=True, help="TLS 1.2 for iso15118-2; iso15118-20 and acdp always have TLS 1.3, mutual.")
@click.option("--pnc", is_flag=True, help="Plug and Charge, for iso15118-2 with --tls.")
@click.option("--interface", default="", help="Network interface for V2G where namespaces are refused.")
@click.option("--evses", type=click.IntRange(1, 3), default=1, show_default=True, help="Bays.")
@click.option("--sessions", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Of the whole station.")
@click.option("--modules", type=click.IntRange(1, 909), help="Otherwise some 150 kW: 46 of 3.3 kW, 5 of 30 kW.")
@click.option("--module-protocol", type=click.Choice(MODULE_PROTOCOLS), default="ek3", show_default=True)
@click.option("--engine", type=click.Choice(("mujoco", "gazebo")), default="mujoco", help="Of the arm's physics.")
@click.option("--camera", is_flag=True, help="The robot finds the inlet in pictures, not by poses that are told.")
@click.option("--target-soc", type=click.FloatRange(1, 100), help="Per cent; otherwise 15 s of charging.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--fault", type=click.Choice(FAULTS), default=None, help="Something goes wrong on purpose.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@click.option("--video", type=click.Path(dir_okay=False, path_type=Path), help="Film of the robot: FILE.mp4.")
@click.option("--record", type=click.Path(file_okay=False, path_type=Path), help="One MCAP file per session, here.")
@click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="Keep every process's output here.")
def demo(
    protocol: str,
    ocpp: str,
    tls: bool,
    pnc: bool,
    interface: str,
    evses: int,
    sessions: int,
    modules: int | None,
    module_protocol: str,
    engine: str,
    camera: bool,
    target_soc: float | None,
    seed: int,
    fault: str | None,
    json_file: Path | None,
    video: Path | None,
    record: Path | None,
    logs: Path | None,
) -> None:
    """One automated charging session on this machine, every edge a real protocol.

    Exit status: 0 when every session completed and the books agree, 1 when not, 2 for bad usage.
    """
    import tempfile

    from robot_charger.common.process import require_logs
    from robot_charger.desk import demo as desk
    from robot_charger.station import DeskOptions, desk_modules

    if video and (video.suffix != ".mp4" or not video.resolve().parent.is_dir()):
        raise click.BadParameter("a file that ends in .mp4, in a directory that is there", param_hint="--video")
    if json_file and not json_file.resolve().parent.is_dir():
        raise click.BadParameter(f"{json_file.parent} is no directory", param_hint="--json")
    if evses > sessions:
        sessions = evses
    with tempfile.TemporaryDirectory(prefix="rc-") as scratch:
        simulation = DeskOptions(
            evses=tuple(range(1, evses + 1)),
            protocol=protocol,
            ocpp=ocpp,
            interface=interface,
            tls=tls,
            pnc=pnc,
            modules=modules or desk_modules(module_protocol),
            module_protocol=module_protocol,
            engine=engine,
            camera=camera,
            target_soc=target_soc,
            seed=seed,
            record=record is not None,
            csms_absent=fault == "csms-absent",
            motion=Path(scratch) / "motion.npz" if video else None,
        )
        if why := impossible(simulation, fault or ""):
            raise Impossible(why)
        require_logs()
        options = desk.DemoOptions(simulation, sessions, fault or "", json_file, logs, record, video)
        sys.exit(desk.run(options))


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def csms(arguments: tuple[str, ...]) -> None:
    """A small CSMS with a console, to drive a station by hand (csms --help)."""
    import runpy

    console = [] if {"--console", "--help", "-h"} & set(arguments) else ["--console"]
    sys.argv = ["robot-charger csms", *arguments, *console]
    runpy.run_module("robot_charger.sim.csms", run_name="__main__")


@main.command()
@click.option("--evses", default="1", show_default=True, help="Numbers of the EVSEs, comma-separated.")
@click.option("--config", type=click.Path(path_type=Path), help="Directory of parameter files.")
@click.option(
    "--logs", type=click.Path(file_okay=False, path_type=Path), default=Path("/tmp/robot-charger"), show_default=True
)
def up(evses: str, config: Path | None, logs: Path) -> None:
    """The nodes of a real station on this computer, without ros2 launch. Ctrl-C ends them, power first."""
    from robot_charger.common.process import require_logs
    from robot_charger.desk import up as desk
    from robot_charger.station import evse_numbers

    try:
        numbers = evse_numbers(evses)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--evses") from None
    require_logs()
    sys.exit(desk.run(numbers, config, logs))


if __name__ == "__main__":
    main()
