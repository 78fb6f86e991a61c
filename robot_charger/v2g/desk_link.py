"""On a desk the v2g process steps into the PLC link's user namespace, before anything starts a thread.

That must be the first thing the process does: importing numpy (which every ROS message does) may start threads,
and a process with more than one cannot change its user namespace. Nothing happens outside a simulation.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from pathlib import Path

from robot_charger.common.plc_link import LinkError, PlcLink, in_single_thread
from robot_charger.common.process import refuse
from robot_charger.common.wires import RUN_DIRECTORY, WireError, run_directory

JOIN_TIMEOUT_S = 10.0  # the link's simulator is started at the same time
_joined: list[PlcLink] = []


def _says_no_link(arguments: list[str]) -> bool:
    """The parameter ``link`` is none, on the command line or in a parameter file. ROS is not up yet to ask."""
    files = [value for flag, value in itertools.pairwise(arguments) if flag == "--params-file"]
    texts = [Path(file).read_text() for file in files if Path(file).is_file()]
    said = re.findall(r"^\s*link:\s*[\"']?(\w+)", "\n".join(texts), re.MULTILINE)
    said += re.findall(r"\blink:=(\w+)", " ".join(arguments))
    return bool(said) and said[-1] == "none"


def join() -> None:
    """Step into the link's user namespace if this is the v2g process of a desk. Ends the process if refused."""
    if RUN_DIRECTORY not in os.environ or _joined:
        return
    found = re.search(r"__ns:=/evse(\d+)", " ".join(sys.argv))
    if not found or _says_no_link(sys.argv):
        return
    try:
        link = PlcLink.wait(run_directory(), int(found[1]), "evse", timeout_s=JOIN_TIMEOUT_S)
    except LinkError:
        return  # a desk without a PLC modem
    except WireError as error:
        refuse(f"v2g: {error}")
    try:
        if link.user:
            in_single_thread(link.join_user)
    except LinkError as error:
        refuse(f"v2g: {error}")
    _joined.append(link)


def joined() -> PlcLink | None:
    """The link that was joined, None when there is none."""
    return _joined[0] if _joined else None
