"""The operator's commands of ``robot-charger``. Each loads what it needs only when it is called."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

FILE = click.Path(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--station", is_flag=True, help="Check for real hardware, by the parameter files of --config.")
@click.option("--config", type=DIRECTORY, help="Folder of the parameter files [default: the installed ones].")
@click.option("--can", multiple=True, help="CAN-FD interface of the modules; more than one possible.")
@click.option("--plc", multiple=True, help="Network interface of the PLC modem; more than one possible.")
@click.option("--certificates", multiple=True, type=click.Path(path_type=Path), help="PEM file or folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def doctor(
    station: bool,
    config: Path | None,
    can: tuple[str, ...],
    plc: tuple[str, ...],
    certificates: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check this computer and say how to mend what is wrong.

    Exit status: 0 when it is fit, 1 when something has to be mended, 2 for bad usage.
    """
    import yaml

    from robot_charger.operator import doctor as checks
    from robot_charger.operator.machine import Machine

    needs = checks.Needs()
    if station or config:
        from robot_charger.station import config_directory

        try:
            needs = checks.needs_of(config or config_directory())
        except (OSError, yaml.YAMLError, AttributeError) as error:
            raise click.UsageError(f"the parameter files cannot be read: {error}") from None
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


commands = [doctor]
