"""What a launched simulation consists of: made by one command before its processes start.

    python -m robot_charger.desk.plan '{"protocol": "din", "evses": [1, 2]}'

makes the run directory with free ports, test certificates and parameter files, writes plan.json into it, and prints the
nodes to start. Launch files call it, because they run under the system's Python and this needs the station's packages;
``desk.simulators`` and ``desk.visits`` are handed the directory.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from robot_charger import station
from robot_charger.cli import MODULE_PROTOCOLS, OCPP_VERSIONS, PROTOCOLS, impossible
from robot_charger.common.can_udp import free_block
from robot_charger.common.configuration import check
from robot_charger.common.process import BAD_USAGE, require_logs
from robot_charger.desk.simulation import free_tcp_port
from robot_charger.v2g import pki

PLAN = "plan.json"
CHOICES = {"protocol": PROTOCOLS, "ocpp": OCPP_VERSIONS, "module_protocol": MODULE_PROTOCOLS}


class PlanError(ValueError):
    """The simulation cannot be as it is wished; one line for each reason."""


def options(wishes: dict[str, Any]) -> station.DeskOptions:
    """Options of the desk from JSON. Raises PlanError."""
    known = {f.name for f in dataclasses.fields(station.DeskOptions)}
    for name, value in wishes.items():
        if name not in known:
            raise PlanError(f"{name} is no option of a simulation")
        if name in CHOICES and value not in CHOICES[name]:
            raise PlanError(f"{name}:={value} is none of {', '.join(CHOICES[name])}")
    evses = tuple(wishes.get("evses", (1,)))
    config = Path(wishes["config"]).resolve() if wishes.get("config") else None
    result = station.DeskOptions(**{**wishes, "evses": evses, "config": config})
    if not 1 <= result.modules <= 909:
        raise PlanError(f"modules:={result.modules} is not from 1 to 909")
    if result.target_soc is not None and not 1 <= result.target_soc <= 100:
        raise PlanError(f"target_soc:={result.target_soc} is not from 1 to 100 per cent")
    if config is not None and (found := [t for t in station.troubles(evses, config) if t.file == config]):
        raise PlanError(str(found[0]))
    if why := impossible(result, ""):
        raise PlanError(why)
    return result


def make(wishes: dict[str, Any]) -> dict[str, Any]:
    """Make the run directory; what a launch file needs of it. Raises PlanError."""
    wished = options(wishes)
    directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    try:
        ports = {"can_port": free_block(wished.buses + len(wished.evses)), "csms_port": free_tcp_port()}
        desk = station.Desk(wished, directory, **ports)
        if wished.needs_pki:
            pki.make(desk.pki)
        nodes = [dataclasses.replace(n, files=(*n.files, station.override_file(n, directory))) for n in desk.nodes()]
        if found := check(nodes):
            raise PlanError("\n".join(map(str, found)))
        (directory / PLAN).write_text(json.dumps({"options": wishes, **ports}))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    described = [
        {"executable": n.executable, "namespace": n.namespace, "files": [str(f) for f in n.files]} for n in nodes
    ]
    return {"directory": str(directory), "evses": list(wished.evses), "nodes": described}


def load(directory: Path) -> station.Desk:
    """The desk that ``make`` prepared in ``directory``."""
    plan = json.loads((directory / PLAN).read_text())
    return station.Desk(options(plan["options"]), directory, plan["can_port"], plan["csms_port"])


def main() -> None:
    require_logs()
    try:
        print(json.dumps(make(json.loads(sys.argv[1]))))
    except (PlanError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_USAGE)


if __name__ == "__main__":
    main()
