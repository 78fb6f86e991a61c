"""What each fault code means to a person and what to do about it: docs/faults.md, watch and report read this table."""

from __future__ import annotations

from typing import NamedTuple

from robot_charger.common.faults import Code


class Advice(NamedTuple):
    """``meaning``: what was seen. ``remedy``: what a person does, the likeliest first."""

    meaning: str
    remedy: str


FAMILIES = {
    1: "Control pilot and proximity",
    2: "V2G: SLAC, DIN 70121, ISO 15118",
    3: "CHAdeMO (from 301) and GB/T 27930 (from 351)",
    4: "Power",
    5: "Insulation and safety",
    6: "Robot",
    7: "Back end",
    8: "Supervisor",
}

ADVICE: dict[Code, Advice] = {
    Code.PILOT_LEVEL: Advice(
        "The pilot's voltage lies between the bands of IEC 61851-1: no state can be read.",
        "Look at `high_v` of pilot/state. Clean and dry the contacts; measure the pilot wire against PE; try another "
        "vehicle. With every vehicle: the pilot board's calibration.",
    ),
    Code.PILOT_DIODE: Advice(
        "The oscillator runs but the negative half wave does not reach -12 V: no diode answers.",
        "No vehicle, but a resistor or a person's meter, may be on the wire. With every vehicle: the board's -12 V "
        "supply, then the pilot wire for a short to PE by way of a resistor.",
    ),
    Code.PILOT_SHORT: Advice(
        "State E: 0 V on the pilot.",
        "Cable or plug damaged, or pilot shorted to PE. Unplug; if it stays, disconnect the cable at the board.",
    ),
    Code.PILOT_GENERATOR: Advice(
        "Frequency, duty cycle or unloaded level of the station's own generator are out of tolerance.",
        "Check the board's +12 V and -12 V supplies; compare `duty` of pilot/command and pilot/state.",
    ),
    Code.PILOT_DRIVER: Advice(
        "The pilot board or its sensor does not answer.",
        "Check the parameter `driver`, the board's supply and bus, and that the station's user may open the device. "
        "On a desk: the simulated vehicle has died.",
    ),
    Code.PROXIMITY: Advice(
        "The resistance on the proximity wire belongs to no plug of this kind.",
        "Look at `proximity_ohm` of pilot/state. Plug not fully seated, a damaged latch switch, or the parameter "
        "`connector` names another plug.",
    ),
    Code.PILOT_LOST: Advice(
        "The vehicle left state C or D while power was on. The output was shut off at once.",
        "Mostly the vehicle's own emergency, or the plug was pulled. Look at the vehicle's display; inspect "
        "the plug for "
        "burn marks before the next session.",
    ),
    Code.SLAC_FAILED: Advice(
        "The modem and the vehicle did not match by SLAC in time.",
        "`v2g` on /diagnostics tells how far it came. Nothing heard: modem firmware, pilot coupling, wrong interface. "
        "Sounds heard but no match: attenuation, a neighbouring vehicle that answers louder. See docs/ccs.md.",
    ),
    Code.LINK_LOST: Advice(
        "The PLC link or the TCP connection went while the session ran.",
        "Check the plug's pilot contact, the modem's supply and `ip -s link`. Often the vehicle simply "
        "closed: look at the "
        "last V2G message in the recording.",
    ),
    Code.V2G_TIMEOUT: Advice(
        "The vehicle took longer for its next message than the standard allows.",
        "The report shows the last message. One vehicle: its maker. All: CPU load of the station "
        "(`robot-charger doctor`).",
    ),
    Code.V2G_SEQUENCE: Advice(
        "A message came that this state of the session does not allow, or that asked for what is not offered.",
        "Keep the recording: it is a fault of the vehicle or of our tables. Reported to both, it can be replayed.",
    ),
    Code.V2G_DECODE: Advice(
        "The vehicle sent a message that cannot be decoded, or a value that cannot be.",
        "The text names the message and the field. Keep the recording: with `record` on, v2g/record holds the bytes "
        "(`exi`), which `robot-charger exi decode` explains. Many vehicles at once: checksums on the PLC link.",
    ),
    Code.V2G_TLS: Advice(
        "TLS failed: certificates missing, refused, or expired.",
        "`robot-charger doctor --certificates FOLDER`; then the clock; then whether vehicle and station share a root.",
    ),
    Code.V2G_VEHICLE_ERROR: Advice(
        "The vehicle reported an error code of its own.",
        "The text names the code. Look at the vehicle's display; nothing is wrong with the station until several "
        "vehicles say it.",
    ),
    Code.V2G_SILENT: Advice(
        "The vehicle's last message is older than `vehicle_timeout_ms` while power was on.",
        "As 203. A value of the parameter below 5000 ms may be too strict for older vehicles.",
    ),
    Code.V2G_INTERNAL: Advice(
        "The v2g node itself failed; the output was shut off.",
        "The node's log holds the traceback: report it with the recording. The node restarts by itself.",
    ),
    Code.SECOND_VEHICLE: Advice(
        "A second vehicle tried to talk while one is connected.",
        "Crosstalk between neighbouring cables: look at the attenuation of both in the diagnostics; separate "
        "the cables.",
    ),
    Code.CHADEMO_TIMEOUT: Advice(
        "A step of the CHAdeMO sequence took too long.",
        "The text names the step. Check d1, d2, k, the lock and 12 V to the vehicle.",
    ),
    Code.CHADEMO_SILENT: Advice(
        "No 0x102 from the vehicle for `can_loss_s` (1 s).",
        "CAN wires in the plug, termination (120 ohm at both ends), bit rate 500 kbit/s.",
    ),
    Code.CHADEMO_VEHICLE_FAULT: Advice(
        "The vehicle set a fault bit or asked to stop with an error.",
        "The text names the bits of 0x102. Look at the vehicle's display.",
    ),
    Code.CHADEMO_INCOMPATIBLE: Advice(
        "Battery voltage or protocol number do not fit this station.",
        "Compare the vehicle's voltage with `power/limits`. Nothing to mend when the vehicle needs more.",
    ),
    Code.CHADEMO_WIRES: Advice(
        "The hard wires and the CAN flags contradict each other, or cannot be read.",
        "Check the contacts j and k of the plug and the digital inputs behind them.",
    ),
    Code.CHADEMO_LOCK: Advice(
        "The station's lock did not follow.",
        "Check the solenoid, its supply and the feedback switch; ice or dirt in the plug.",
    ),
    Code.CHADEMO_FRAME: Advice(
        "A frame of the vehicle has a wrong length or impossible values.",
        "Keep the recording; check termination and shielding if frames are damaged at random.",
    ),
    Code.GBT_TIMEOUT: Advice(
        "A step of the GB/T 27930 handshake took too long, also after three restarts.",
        "The text names the message that did not come. Check 12 V on A+, CAN termination (120 ohm at both ends), 250 "
        "kbit/s; many vehicles must be asleep for a minute before they answer again.",
    ),
    Code.GBT_SILENT: Advice(
        "The vehicle fell silent in the charge or at its end.",
        "The text names the message. CAN wires S+ and S- in the plug, termination, bit rate 250 kbit/s.",
    ),
    Code.GBT_VEHICLE_FAULT: Advice(
        "The vehicle reports a fault of its battery, or a cell is above the vehicle's own limit.",
        "The text names it. Look at the vehicle's display; another vehicle may charge.",
    ),
    Code.GBT_INCOMPATIBLE: Advice(
        "The battery's voltage is outside the station's range, not the one that the vehicle named, or reversed.",
        "Compare the text with `power/limits`. With plus and minus exchanged: do not use this vehicle or plug again "
        "before both were measured.",
    ),
    Code.GBT_WIRES: Advice(
        "CC1 does not show a plug that is all in, or the lines cannot be read.",
        "Push the plug in until its latch clicks; check the comparator of CC1 (3.2 to 4.8 V) and the digital inputs.",
    ),
    Code.GBT_LOCK: Advice(
        "The electronic lock did not follow, opened under load, or holds a plug that is still live.",
        "The text says which. Check the lock, its supply and the feedback switch; never force a plug that is live.",
    ),
    Code.GBT_FRAME: Advice(
        "More charging requests arrive than one vehicle sends.",
        "A second vehicle, or a recording, is on this bus: each plug needs a bus of its own.",
    ),
    Code.MODULE_LOST: Advice(
        "A module sends no status frames any more. The bank goes on with less.",
        "`/power/modules` names it. Check its mains, its CAN plug and its address; swap it with a neighbour.",
    ),
    Code.MODULE_FAULT: Advice(
        "A module reports a fault of its own and was taken out.",
        "`/power/modules` tells the fault bits (config/ek3.dbc). Switch its mains off for a minute; replace it if it "
        "comes back.",
    ),
    Code.POWER_BUS: Advice(
        "The CAN bus of the modules is off or silent.",
        "`robot-charger doctor --can can0`; `ip -s -details link show can0`; termination; then the adapter.",
    ),
    Code.POWER_BUS_LOAD: Advice(
        "More modules on one bus than it can carry at the cycle time.",
        "Spread the modules over more buses: `bus: socketcan:can0,socketcan:can1`.",
    ),
    Code.CONTACTOR_FEEDBACK: Advice(
        "A contactor did not follow its request in time.",
        "Coil supply, the auxiliary contact's wiring, the contactor. Never bridge the feedback.",
    ),
    Code.CONTACTOR_WELDED: Advice(
        "A contactor is closed though it should be open. The EVSE stays out of service.",
        "Switch the station off at the mains. Measure both poles without voltage; replace the contactor "
        "pair; then reset.",
    ),
    Code.OVERVOLTAGE: Advice(
        "More voltage at the output than permitted.",
        "Look at the report: a load dump (vehicle opened its contactor under load) or a module that does not follow. "
        "Check the measurement against a meter before the next session.",
    ),
    Code.OVERCURRENT: Advice(
        "More current than the set-point plus its margin; at an AC outlet, more than the pilot tells the vehicle.",
        "Compare the sum of the modules with the meter in the report: a module that does not follow, or a sensor. AC: "
        "the vehicle does not keep to the pilot, it belongs into a workshop.",
    ),
    Code.PRECHARGE: Advice(
        "The output did not reach the vehicle's voltage in time.",
        "Vehicle asks for more than the bank's range, discharge resistor stuck on, or a pre-load on the "
        "vehicle's side.",
    ),
    Code.DISCHARGE: Advice(
        "The output is not below 60 V in time: the plug stays locked.",
        "Do not touch. Check the discharge circuit; wait; measure before you unplug by hand.",
    ),
    Code.METER: Advice(
        "The DC meter does not answer or its registers went backwards. Nothing that cannot be billed is delivered.",
        "Check its supply, wiring and address (`meter.address`); read it by hand with a Modbus tool.",
    ),
    Code.PERMIT_LAPSED: Advice(
        "Power held no valid permit of the supervisor: the output went to zero.",
        "Supervisor dead or starved. Look at /diagnostics for missed deadlines; `robot-charger doctor` on SCHED_FIFO.",
    ),
    Code.OVERTEMPERATURE: Advice(
        "A module, contactor, cable or plug is too hot. The station derates or stops.",
        "Fans and filters; coolant of the cable; a plug that is warm at one pin is worn.",
    ),
    Code.NO_MODULES: Advice(
        "No healthy module is left, or none answers yet.",
        "Mains of the rack, CAN bus (`robot-charger doctor --can can0`), the parameter `modules`.",
    ),
    Code.ADDRESS_CLASH: Advice(
        "Two modules answer by the same address.",
        "The text names it. Unplug one of the CAN plugs; set the address switch anew; mind the new module.",
    ),
    Code.REVERSED_POLARITY: Advice(
        "The voltage at the inlet has the wrong sign: the contactors do not close.",
        "Exchanged poles in the cable, the plug or the vehicle. Measure before you touch; take the cable "
        "out of service.",
    ),
    Code.INSULATION: Advice(
        "Insulation measured below the limit at the cable check. Never retried on this vehicle.",
        "Try another vehicle. Same there: cable or plug wet or damaged, replace. Only this one: it belongs "
        "into a workshop.",
    ),
    Code.INSULATION_CHARGING: Advice(
        "Insulation fell below the limit during the transfer: emergency shutdown. At an AC outlet: the residual "
        "current monitor has tripped.",
        "As 501. After rain look at plug and inlet for water first. AC: with nothing plugged the monitor must be "
        "content; else its wire or itself.",
    ),
    Code.INSULATION_SELF_TEST: Advice(
        "The insulation monitor failed its self-test: it, not the vehicle, is at fault.",
        "Check its PE wire (the self-test needs it), its supply, then replace it.",
    ),
    Code.EMERGENCY_STOP: Advice(
        "The E-stop chain is open, or latched until the reset on site.",
        "See why it was pressed. Release it, close all doors, then reset on site: `robot-charger watch`, key r, or the "
        "service /evseN/reset. A reset starts nothing.",
    ),
    Code.DOOR: Advice(
        "A door of the cabinet is open.",
        "Close it; check the switch and the chain's wiring if it is closed.",
    ),
    Code.SAFETY_LOST: Advice(
        "The safety controller is silent, or it has not heard power's heartbeat.",
        "Its supply and its CAN plug first; then the bus (`robot-charger doctor --can can0`).",
    ),
    Code.FIELD_BREACHED: Advice(
        "Someone or something is in the protective field of the bay: the arm holds.",
        "Clear the bay. Restart deliberately; the arm does not go on by itself. Clean the scanner if nobody is there.",
    ),
    Code.FIRE: Advice(
        "Smoke or heat was detected. Everything is off, the arm holds and does not unplug, until a reset on site.",
        "Clear the bays and call the fire service. After inspection by a qualified person, reset on site.",
    ),
    Code.MAINS_LOST: Advice(
        "The mains failed: the station runs on its uninterruptible supply. It ends the session and frees the vehicle.",
        "See to the supply. The arm's brakes hold it; free a vehicle by hand if the supply ends first.",
    ),
    Code.SAFETY_TRIP: Advice(
        "The safety controller tripped this EVSE; the reason is in the text (docs/safety-controller.md). Latched until "
        "a reset on site.",
        "Find the cause before you reset: voltage, polarity, current or protective earth were outside their limits.",
    ),
    Code.ROBOT_JAM: Advice(
        "The plug went neither in nor back to the expected force: it sits askew.",
        "Look at force and depth in the report. Inspect plug and inlet for dirt and bent pins.",
    ),
    Code.ROBOT_FORCE: Advice(
        "A force limit was exceeded and the arm retreated.",
        "As 601. With every vehicle: the tare of the force sensor, the tool's mass in config/arm/.",
    ),
    Code.ROBOT_POSE: Advice(
        "The inlet was not seen, its pose is stale, or it is out of reach.",
        "Camera clean and lit? Vehicle parked within the marks, flap open? Then `ros2 topic echo /robot/inlet_pose`.",
    ),
    Code.ROBOT_SENSOR: Advice(
        "Wrench or joint states are dead, frozen or biased.",
        "`ros2 topic hz /robot/wrench /robot/joint_states`; check the sensor's plug; tare it in free air.",
    ),
    Code.ROBOT_NOT_MATED: Advice(
        "The arm believes the plug is seated, but depth, end-stop or the pilot disagree.",
        "Foreign matter in the inlet, or worn end-stop. Look at depth and pilot in the report.",
    ),
    Code.ROBOT_STUCK: Advice(
        "The plug does not come out within the permitted pull.",
        "The vehicle holds its lock: unlock with its key or in its menu, then reset. By hand: docs/robot.md.",
    ),
    Code.ROBOT_VEHICLE_MOVED: Advice(
        "The vehicle moved while the arm was near it.",
        "Parking brake. Restart the session when it stands.",
    ),
    Code.ROBOT_PERMIT: Advice(
        "The motion permit lapsed: the arm holds where it is.",
        "Supervisor dead or starved; it goes on by itself when the supervisor permits again.",
    ),
    Code.ROBOT_ARM: Advice(
        "The arm or its tool does not answer.",
        "The arm's own controller: brakes, protective stop, network cable. Then reset on site.",
    ),
    Code.ROBOT_OBSTACLE: Advice(
        "The arm met something where nothing should be, stopped and drew back.",
        "Look for a person or a thing between arm and vehicle. Clear the way, then reset on site.",
    ),
    Code.BACKEND_OFFLINE: Advice(
        "The CSMS cannot be reached. Sessions go on by the offline policy; records wait in the store.",
        "Network, address and DNS. `/backend/state` tells how many records wait.",
    ),
    Code.BACKEND_REFUSED: Advice(
        "The CSMS refused the station's boot or a token.",
        "At the CSMS: is this `station_id` known and enabled? For a token: its owner.",
    ),
    Code.BACKEND_STORE: Advice(
        "The durable store is full or broken: nothing new is charged; what runs goes on, for it can be billed.",
        "`df -h`; free space. Broken: keep a copy for the accounts before you move the file away.",
    ),
    Code.BACKEND_TLS: Advice(
        "TLS to the CSMS failed.",
        "`robot-charger doctor --station`; clock; certificates' expiry and name; the root in `tls.ca_file`.",
    ),
    Code.NODE_LOST: Advice(
        "A node's topics fell silent for 300 ms: it died, hangs or was starved.",
        "The text names it. Its log has the reason; it is restarted. Often: see CPU load and SCHED_FIFO.",
    ),
    Code.AUTHORIZATION: Advice(
        "Authorisation was refused or took too long. The plug is taken out; nothing is billed.",
        "Nothing to mend when the token is unknown. Otherwise `/backend/state`.",
    ),
    Code.VEHICLE_GONE: Advice(
        "The vehicle vanished without an orderly stop (pilot A or link lost).",
        "It drove off or the cable was pulled: inspect plug, cable and arm before the next session.",
    ),
    Code.TIMEOUT: Advice(
        "A phase of the session took too long.",
        "The text names the phase; the report shows what it waited for. The limits are the supervisor's `limits.*`.",
    ),
    Code.INTERLOCK: Advice(
        "An interlock forbade what was asked.",
        "The text names the interlock (docs/safety.md). It did its duty: find out who asked. An AC vehicle that asks "
        "for ventilation ends so too, where ac.ventilated is not set.",
    ),
    Code.INTERNAL: Advice(
        "A node failed in its own code.",
        "Its log holds the traceback: report it with the recording.",
    ),
}


def advice(code: int) -> Advice | None:
    """Advice for a number as it stands in msg/Fault, None for one that this version does not know."""
    try:
        return ADVICE.get(Code(code))
    except ValueError:
        return None
