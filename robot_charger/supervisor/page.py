"""``python -m robot_charger.supervisor.page [FILE]``: a page to flip the inputs of a session and see what follows.

Choose a phase and the inputs; the page says which rule of the flow table fires, where it leads, what is permitted, and
which interlock holds what. Its answers are computed here, by the table itself, for every single change of the healthy
inputs of each phase, and for every pair of changes; the page only looks them up. No server, no network.
"""

from __future__ import annotations

import html
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from robot_charger.common.faults import Code, Severity
from robot_charger.supervisor import flow, interlocks
from robot_charger.supervisor.model import Inputs, Limits, Session
from robot_charger.words.values import Authorization, Insulation, Link, Lock, Phase, Pilot, Purpose

HEALTHY = Inputs(
    nodes_ready=True, safety_alive=True, bay_alive=True, occupied=True, immobilised=True, field_clear=True,
    pilot_alive=True, pilot=Pilot.C, power_alive=True, supply_available=True, power_left=True, contactors_open=True,
    voltage_v=0.0, current_a=0.0, insulation=Insulation.VALID, insulation_permit=7, offer_a=16.0, link_alive=True,
    link=Link.CHARGING, link_session="this", target=Purpose.TRANSFER, target_live=True, lock=Lock.LOCKED,
    robot_alive=True, robot_clear=True, authorization=Authorization.ACCEPTED,
)  # fmt: skip
SESSION = Session(session_id="this", goal_number=5, mated=True, insulation_passed=True, test_permit=7)
ENERGISED = {"contactors_open": False, "voltage_v": 400.0, "current_a": 100.0}
OF_PHASE: dict[Phase, dict[str, Any]] = {
    Phase.CABLE_CHECK: {"target": Purpose.INSULATION_TEST, "link": Link.CABLE_CHECK},
    Phase.PRECHARGE: {"target": Purpose.PRECHARGE, "link": Link.PRECHARGE, **ENERGISED, "current_a": 0.0},
    Phase.CHARGING: ENERGISED,
    Phase.STOPPING: {"target": Purpose.NONE, "link": Link.STOPPING},
}
CHANGES: dict[str, dict[str, Any]] = {
    "emergency stop pressed": {"emergency_stop": True},
    "fire": {"fault": Code.FIRE, "severity": Severity.EMERGENCY},
    "over-voltage at the vehicle": {"fault": Code.OVERVOLTAGE, "severity": Severity.EMERGENCY},
    "a fault that stops": {"fault": Code.MODULE_FAULT, "severity": Severity.STOP},
    "mains lost": {"fault": Code.MAINS_LOST, "severity": Severity.STOP},
    "safety controller silent": {"safety_alive": False},
    "field breached": {"field_clear": False},
    "vehicle not immobilised": {"immobilised": False},
    "bay empty": {"occupied": False, "immobilised": False},
    "power silent": {"power_alive": False, "contactors_open": False, "voltage_v": 1000.0, "current_a": 1000.0},
    "a contactor is not surely open": {"contactors_open": False},
    "400 V at the inlet": {"voltage_v": 400.0},
    "-400 V at the inlet": {"voltage_v": -400.0},
    "contactors open, 0 V, 0 A": {"contactors_open": True, "voltage_v": 0.0, "current_a": 0.0},
    "pilot silent": {"pilot_alive": False, "pilot": Pilot.UNKNOWN},
    "pilot A": {"pilot": Pilot.A},
    "pilot B": {"pilot": Pilot.B},
    "pilot F": {"pilot": Pilot.F},
    "protocol silent": {"link_alive": False, "link": Link.IDLE, "link_session": ""},
    "conversation ended": {"link": Link.ENDED, "target": Purpose.NONE},
    "vehicle silent": {"target_live": False, "target": Purpose.NONE},
    "vehicle stops": {"link": Link.STOPPING, "target": Purpose.NONE},
    "connector unlocked": {"lock": Lock.UNLOCKED},
    "lock fault": {"lock": Lock.FAULT},
    "insulation fault": {"insulation": Insulation.FAULT},
    "not authorised": {"authorization": Authorization.REFUSED},
    "arm in the contact zone": {"robot_clear": False},
    "robot silent": {"robot_alive": False},
    "robot has done its goal": {"goal_done": 5, "goal_grasped": True},
    "stop asked by the back end": {"stop_asked": "Remote"},
    "store broken": {"store_ok": False},
}


def answer(phase: Phase, names: tuple[str, ...]) -> dict[str, str]:
    """What follows in one phase from the named changes of its healthy inputs."""
    changes: dict[str, Any] = dict(OF_PHASE.get(phase, {}))
    for name in names:
        changes |= CHANGES[name]
    i, s = replace(HEALTHY, **changes), replace(SESSION, phase=phase)
    if phase in (Phase.IDLE, Phase.POSITIONING, Phase.CONNECTING, Phase.UNAVAILABLE, Phase.DEPARTING):
        s = replace(s, mated=False, insulation_passed=False)
    after, events = flow.step(s, i, 1.0, Limits())
    commands = flow.command(after, i, Limits())
    return {
        "rule": ", ".join(events) or "none",
        "phase": after.phase.name.lower(),
        "shutdown": after.shutdown.name.lower()
        + (", latched until a reset on site" if after.emergency_latched else ""),
        "output": commands.purpose.name.lower(),
        "arm": commands.zone.name.lower(),
        "pilot": commands.pilot.name.lower(),
        "output is held by": interlocks.forbids_purpose(after, i, Purpose.TRANSFER) or "nothing",
        "contact motion is held by": interlocks.forbids_contact_motion(after, i) or "nothing",
    }


def table() -> dict[str, dict[str, dict[str, str]]]:
    """Answers by phase and by the changes' numbers, "3" or "3,7"; "" is healthy."""
    names = list(CHANGES)
    sets = [(), *((n,) for n in names), *itertools.combinations(names, 2)]
    return {
        phase.name.lower(): {",".join(str(names.index(n)) for n in some): answer(phase, some) for some in sets}
        for phase in Phase
    }


PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>robot_charger: what follows from what</title>
<style>body{font:16px sans-serif;margin:2em;max-width:70em}label{display:block}main{display:flex;gap:3em}
td{padding:.2em 1em .2em 0;vertical-align:top}td:first-child{color:#555}</style>
<h1>What follows from what</h1>
<p>Choose a phase and at most two changes of its healthy inputs. The answers are those of the flow table and of the
interlocks (docs/session.md, docs/safety.md), one step later.</p>
<p><select id="phase">OPTIONS</select></p><main><div id="changes">BOXES</div><table id="answer"></table></main>
<script>const T=TABLE;
function show(){const b=[...document.querySelectorAll('input')],on=b.filter(x=>x.checked).map(x=>x.value);
b.forEach(x=>x.disabled=on.length>1&&!x.checked);const a=T[document.getElementById('phase').value][on.join(',')];
const t=document.getElementById('answer');t.textContent='';for(const k in a){const r=t.insertRow();
r.insertCell().textContent=k;r.insertCell().textContent=a[k]}}
document.addEventListener('change',show);show()</script></html>
"""


def page() -> str:
    options = "".join(f"<option>{p.name.lower()}</option>" for p in Phase)
    boxes = "".join(
        f'<label><input type="checkbox" value="{n}"> {html.escape(name)}</label>' for n, name in enumerate(CHANGES)
    )
    told = json.dumps(table(), separators=(",", ":")).replace("</", "<\\/")
    return PAGE.replace("OPTIONS", options).replace("BOXES", boxes).replace("TABLE", told)


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "what-follows.html")
    file.write_text(page())
    print(file)
