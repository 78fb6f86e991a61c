"""The operator's commands of ``robot-charger``. Each loads what it needs only when it is called."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import click

FILE = click.Path(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--station", is_flag=True, help="Check for real hardware, by the parameter files of --config.")
@click.option("--config", type=DIRECTORY, help="Folder of the parameter files [default: the installed ones].")
@click.option("--evses", default="1", show_default=True, help="Numbers of the EVSEs, comma-separated.")
@click.option("--can", multiple=True, help="CAN-FD interface of the modules; more than one possible.")
@click.option("--plc", multiple=True, help="Network interface of the PLC modem; more than one possible.")
@click.option("--certificates", multiple=True, type=click.Path(path_type=Path), help="PEM file or folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def doctor(
    station: bool,
    config: Path | None,
    evses: str,
    can: tuple[str, ...],
    plc: tuple[str, ...],
    certificates: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check this computer and say how to mend what is wrong.

    Exit status: 0 when it is fit, 1 when something has to be mended, 2 for bad usage.
    """
    from robot_charger.operator import doctor as checks
    from robot_charger.operator.machine import Machine

    needs = checks.Needs()
    if station or config:
        from robot_charger.common.configuration import config_directory
        from robot_charger.station import evse_numbers

        try:
            needs = checks.needs_of(config or config_directory(), evse_numbers(evses))
        except (OSError, ValueError) as error:
            raise click.UsageError(str(error)) from None
    needs = dataclasses.replace(
        needs,
        can=needs.can + can,
        plc=needs.plc + plc,
        certificates=needs.certificates + certificates,
    )
    findings = checks.examine(Machine(), needs)
    if as_json:
        document = [{**dataclasses.asdict(f), "level": f.level.name.lower()} for f in findings]
        click.echo(json.dumps(document, indent=2))
    else:
        for line in checks.as_text(findings):
            click.echo(line)
    sys.exit(0 if checks.fit(findings) else 1)


@click.command()
@click.option("--directory", type=DIRECTORY, default="recordings", show_default=True, help="Where the files go.")
@click.option("--evses", type=click.IntRange(1, 20), default=1, show_default=True, help="How many EVSEs there are.")
@click.option("--can", multiple=True, help="CAN bus to record, e.g. socketcan:can0; more than one possible.")
@click.option("--ocpp-journal", type=FILE, help="Journal of the desk's CSMS (csms.sqlite).")
@click.option("--continuous", is_flag=True, help="One recording of everything, not one per session.")
@click.option("--personal", is_flag=True, help="Keep vehicle identities and tokens, which are masked otherwise.")
@click.option("--split-mb", type=click.IntRange(1), default=512, show_default=True, help="Begin a new part then.")
@click.option("--limit-mb", type=click.IntRange(1), default=10_240, show_default=True, help="Oldest go beyond that.")
@click.option("--keep-free-mb", type=click.IntRange(0), default=300, show_default=True, help="Of the disk.")
def record(
    directory: Path,
    evses: int,
    can: tuple[str, ...],
    ocpp_journal: Path | None,
    continuous: bool,
    personal: bool,
    split_mb: int,
    limit_mb: int,
    keep_free_mb: int,
) -> None:
    """Record the sessions of a running station, one MCAP file each, until Ctrl-C.

    Exit status: 0, or 2 for bad usage. A full disk ends the file, never the recorder; /diagnostics tells.
    """
    _environment()
    from robot_charger.operator.recorder import MB, Options, run
    from robot_charger.operator.recording import Limits

    limits = Limits(split_mb * MB, limit_mb * MB, keep_free_mb * MB)
    run(Options(directory, tuple(range(1, evses + 1)), can, ocpp_journal, personal, continuous, limits))


@click.command()
@click.option("--evse", type=click.IntRange(1), default=1, show_default=True, help="Where the arm may move.")
@click.option("--zone", type=click.Choice(("free", "contact")), default="free", show_default=True, help="How near.")
def permit(evse: int, zone: str) -> None:
    """Permit the arm to move while this runs, where no supervisor does: to commission an arm.

    Not with an emergency stop, a breached field, a vehicle that may roll, or energy at the plug. Ctrl-C ends it.
    Exit status: 0, or 1 with one line when a supervisor is there, or comes.
    """
    _environment()
    from robot_charger.operator import hand_permit

    try:
        hand_permit.run(evse, zone, click.echo)
    except hand_permit.PermitError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", type=FILE, help="The page [default: FILE with the ending .html].")
@click.option("--against", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A second session.")
@click.option("--evse", type=click.IntRange(0), default=0, help="Which one [default: the first in the file].")
@click.option("--png", type=FILE, help="Also a picture of the page, by chromium.")
def report(file: Path, output: Path | None, against: Path | None, evse: int, png: Path | None) -> None:
    """Show a recording as one HTML page that stands alone.

    Exit status: 0, or 1 with one line when the file cannot be used.
    """
    from robot_charger.operator import report as reports
    from robot_charger.operator.reading import RecordingError

    output = output or file.with_suffix(".html")
    try:
        stories = reports.report([file, *([against] if against else [])], output, evse)
        for story in stories:
            broken = f" ({story.summary.truncated})" if story.summary.truncated else ""
            click.echo(f"{story.path}: {story.summary.messages} messages, {story.verdict}{broken}")
        click.echo(output)
        if png:
            reports.picture(output, png)
            click.echo(png)
    except (RecordingError, OSError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@click.command()
@click.option("--evse", "evses", type=click.IntRange(1), multiple=True, help="Which ones [default: all heard].")
@click.option("--token", default="", help="Id token that the key a authorises with.")
@click.option("--remote", is_flag=True, help="Also look for stations on the network, not only on this computer.")
def watch(evses: tuple[int, ...], token: str, remote: bool) -> None:
    """Show a running station live; keys authorise, stop and reset.

    Exit status: 0, or 1 with one line when no station is heard.
    """
    _environment(remote)
    from robot_charger.operator import watch as watching

    try:
        watching.watch(list(evses) or watching.find_evses(), token)
    except watching.WatchError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--evse", type=click.IntRange(0), default=0, help="Which one [default: the first in the file].")
@click.option("--live", is_flag=True, help="Play the vehicle's side at nodes that run already; compare nothing.")
@click.option("--can", nargs=2, metavar="TOPIC BUS", help="Only send recorded frames, e.g. /can/can1 socketcan:can1.")
@click.option("--ids", default="0x100-0x1ff", show_default=True, help="Range of CAN ids to send (a vehicle's).")
@click.option("--excerpt", type=FILE, help="Only write what a replay needs into this small file, e.g. for a test.")
@click.option("--longest", type=click.FloatRange(0), default=0, help="Of the excerpt: seconds a phase keeps [all].")
def replay(
    file: Path, evse: int, live: bool, can: tuple[str, str] | None, ids: str, excerpt: Path | None, longest: float
) -> None:
    """Play a recorded session at a supervisor of its own: does it come to the same end?

    Exit status: 0 when phases, fault and stop reason are those recorded, 1 when not, 2 for bad usage.
    """
    _environment()
    from robot_charger.common.can_bus import BusError
    from robot_charger.common.domain import free_domain
    from robot_charger.operator import playback
    from robot_charger.operator.reading import RecordingError

    try:
        if excerpt:
            click.echo(f"{excerpt}: {playback.excerpt(file, excerpt, longest)} messages")
            return
        from robot_charger.operator import replay as playing

        if can:
            low, _, high = ids.partition("-")
            try:
                bounds = int(low, 0), int(high or low, 0)
            except ValueError:
                raise click.BadParameter(f"{ids!r} is no range like 0x100-0x1ff", param_hint="--ids") from None
            click.echo(f"{playing.play_can(file, *can, *bounds)} frames sent")
            return
        script = playback.read_script(file, evse)
        if live:
            trouble = playing.play_vehicle(script, evse)
            click.echo(trouble or "played", err=bool(trouble))
            sys.exit(1 if trouble else 0)
        with free_domain() as domain:  # never at a station that happens to run here
            os.environ["ROS_DOMAIN_ID"] = str(domain)
            verdict = playing.check(script)
        for line in verdict.lines():
            click.echo(line)
        sys.exit(0 if verdict.same else 1)
    except (RecordingError, BusError, FileExistsError) as error:
        click.echo(str(error), err=True)
        sys.exit(2)


def _environment(remote: bool = False) -> None:
    """The same DDS settings as the station's own processes, unless something else is set."""
    from robot_charger.common import host_only
    from robot_charger.common.process import require_logs

    if not remote:
        host_only.stay()
    require_logs()


commands = [doctor, permit, record, report, replay, watch]
