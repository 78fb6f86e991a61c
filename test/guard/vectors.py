"""python test/guard/vectors.py: writes vectors.json, what a firmware of the safety controller can be run against.

Each vector is a list of cycles of 10 ms: the time, the inputs that change, the frame of power that arrives before the
step (hexadecimal, or none), and the outputs after it. A firmware starts each vector from power-up with ``config``, and
must give the same outputs, and the same status frames, in every cycle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guard_rig import Rig

from robot_charger.guard import frames
from robot_charger.guard.logic import Pilot

FILE = Path(__file__).with_name("vectors.json")
OUTPUTS = (
    "coils",
    "inhibit",
    "pilot_f",
    "d_allowed",
    "links",
    "released",
    "arm_enable",
    "latched",
    "tripped",
    "reason",
)
Action = dict[str, Any]

# Keys that are no input: "contactors", "links", "speaks" and "echo_lag" are power's side; "cycles" repeats.
CHARGE: list[Action] = [
    {"cycles": 2},
    {"contactors": 1, "cycles": 4},
    {"voltage_dv": 4000, "current_da": 1000, "cycles": 2},
]
SCENARIOS: dict[str, tuple[str, list[Action]]] = {
    "request, close, let go": ("SC-20", [*CHARGE, {"current_da": 0}, {"contactors": 0, "cycles": 3}]),
    "a request that was never off": ("SC-20", [{"contactors": 1, "cycles": 4}, {"contactors": 0}, {"contactors": 1}]),
    "one channel of the emergency stop under load": ("SC-1, SC-25", [*CHARGE, {"chain_b": False, "cycles": 13}]),
    "emergency stop and power ends the current": (
        "SC-1", [*CHARGE, {"chain_a": False, "chain_b": False, "cycles": 3}, {"current_da": 40, "cycles": 2}]
    ),
    "reset": (
        "SC-12, SC-14",
        [*CHARGE, {"current_da": 0}, {"chain_a": False, "chain_b": False, "cycles": 2}, {"reset": True},
         {"reset": False}, {"chain_a": True, "chain_b": True, "cycles": 2}, {"reset": True, "cycles": 2},
         {"reset": False}, {"contactors": 0}, {"contactors": 1, "cycles": 2}],
    ),
    "channels that differ": ("SC-1", [{"cycles": 2}, {"chain_a": False, "cycles": 53}]),
    "fire": ("SC-2", [*CHARGE, {"fire": True, "cycles": 12}, {"fire": False}, {"reset": True, "cycles": 2}]),
    "heartbeat lost under load": ("SC-3", [*CHARGE, {"speaks": False, "cycles": 10}, {"speaks": True, "cycles": 3}]),
    "heartbeat late": ("SC-17", [*CHARGE, {"echo_lag": 9, "cycles": 10}]),
    "door": ("SC-4", [*CHARGE, {"door_open": True, "cycles": 3}, {"current_da": 0}, {"door_open": False, "cycles": 2}]),
    "mains": ("SC-5", [*CHARGE, {"mains_ok": False, "cycles": 5}, {"current_da": 0, "cycles": 2}]),
    "over-temperature": ("SC-6", [*CHARGE, {"over_temperature": True, "cycles": 12}]),
    "over-voltage": ("SC-7, SC-13", [*CHARGE, {"voltage_dv": 11_001, "cycles": 3}, {"voltage_dv": 0}, {"reset": True}]),
    "over-voltage for one sample": ("SC-7", [*CHARGE, {"voltage_dv": 11_001}, {"voltage_dv": 4000, "cycles": 3}]),
    "reversed polarity before closing": ("SC-8", [{"voltage_dv": -4000, "cycles": 2}, {"contactors": 1, "cycles": 5}]),
    "reversed polarity": ("SC-8", [*CHARGE, {"voltage_dv": -101, "current_da": 0, "cycles": 3}]),
    "over-current": ("SC-9, SC-25", [*CHARGE, {"current_da": 6_601, "cycles": 33}]),
    "current through open contactors": ("SC-11", [{"cycles": 2}, {"current_da": -50, "cycles": 22}]),
    "protective earth": ("SC-15", [*CHARGE, {"earth_ok": False, "current_da": 0, "cycles": 53}]),
    "a pole welds": ("SC-16", [*CHARGE, {"current_da": 0, "contactors": 0, "positive_closed": True, "cycles": 23}]),
    "pilot leaves C": ("SC-18", [*CHARGE, {"pilot": int(Pilot.B), "current_da": 0, "cycles": 22}]),
    "the vehicle rolls": ("SC-19", [*CHARGE, {"immobilised": False, "current_da": 0, "cycles": 22}]),
    "arm and field": (
        "SC-24", [{"cycles": 2}, {"arm_request": True, "arm_near": 1, "cycles": 2}, {"field_clear": False, "cycles": 2},
                  {"field_clear": True, "cycles": 2}, {"arm_request": False}, {"arm_request": True, "cycles": 2}],
    ),
    "arm in the contact zone": (
        "SC-24", [{"cycles": 2}, {"arm_request": True, "arm_zone": 1, "arm_moving": True, "cycles": 2},
                  {"voltage_dv": 600}, {"voltage_dv": 0, "cycles": 2}],
    ),
    "rivals of a matrix": ("SC-10", [{"cycles": 2}, {"links": 0b0111, "cycles": 2}, {"links": 0b1010, "cycles": 3}]),
}  # fmt: skip
POWER = {"contactors": "contactors", "links": "links", "speaks": "power_speaks", "echo_lag": "echo_lag"}


def run(actions: list[Action]) -> list[Action]:
    rig = Rig(evses=(1, 2), blocks=2)
    initial = {"pilot": int(Pilot.C), "occupied": True, "immobilised": True, "field_clear": True}
    cycles: list[Action] = []
    first: Action = {"evses": {"1": initial, "2": initial}}
    for action in actions:
        inputs = {k: v for k, v in action.items() if k not in POWER and k != "cycles"}
        for name, attribute in POWER.items():
            if name in action:
                setattr(rig, attribute, action[name])
        for _ in range(action.get("cycles", 1)):
            contacts = bool(rig.out.coils & 1)
            rig.set(**inputs)
            rig.cycle()
            out, guard = rig.out, rig.guard
            status = frames.encode_safety(
                int(out.bits), out.closed, out.tripped, 80, guard.request.counter, int(out.reason), guard.counter
            )[1]
            told = {"positive_closed": contacts, "negative_closed": contacts, **inputs}
            row = {"ms": rig.ms, "in": first | told, "frame": rig.frame.hex() or None,
                   "out": {n: int(getattr(out, n)) for n in OUTPUTS},
                   "bays": [int(guard.bay_bits[1]), int(guard.bay_bits[2])], "status": status.hex()}  # fmt: skip
            cycles.append(row)
            first = {}
    return cycles


def text() -> str:
    config = {"evses": [1, 2], "blocks": 2, "switched": 0, "heartbeat_ms": 80, "over_voltage_dv": 11_000,
              "over_current_da": 6_600, "pilot_fitted": 0xFFFF, "bay_fitted": 0xFFFF}  # fmt: skip
    vectors = [
        {"name": name, "requirements": requirements, "cycles": run(actions)}
        for name, (requirements, actions) in SCENARIOS.items()
    ]
    lines = ",\n".join(
        json.dumps({k: v for k, v in vector.items() if k != "cycles"})[:-1]
        + ', "cycles": [\n'
        + ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in vector["cycles"])
        + "\n]}"
        for vector in vectors
    )
    return f'{{"config": {json.dumps(config)},\n"vectors": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"{FILE}: {len(SCENARIOS)} vectors")
