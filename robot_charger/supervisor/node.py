"""The supervisor of one EVSE: the automated session and its permits.

Publishes (in /evseN): ``power/permit`` and ``robot/permit`` (20 Hz and at once), ``pilot/command``,
``session/state`` (5 Hz and at once), ``session/event``, ``fault``.
Subscribes: every topic of its EVSE, ``/safety/state``, ``/robot/state``, ``/backend/state``, ``/fault``.
Serves: action ``charge``, service ``reset``. Calls: ``/authorize``, ``/robot/connect``, ``/robot/release``,
``/robot/disconnect`` and the life-cycle services of the nodes it manages.
Parameters: see SupervisorParameters.
"""

from __future__ import annotations

import dataclasses
import threading
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from robot_charger import action, msg, srv
from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Severity
from robot_charger.common.node import ERROR, OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.parameters import parameter
from robot_charger.common.topics import fill
from robot_charger.supervisor import flow, memory
from robot_charger.supervisor.bringup import Bringup
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import (
    Authorization,
    Commands,
    Goal,
    Limits,
    Phase,
    PilotMode,
    Purpose,
    Session,
    Shutdown,
)
from robot_charger.supervisor.permits import Numbered, Permit, permit

LOOP_S = 0.04  # longest wait for news; with the next it makes 20 Hz
SHORTEST_CYCLE_S = 0.01  # messages that come together are read together
PERMIT_PERIOD_NS = 48_000_000
STATE_PERIOD_S = 0.2
STATE_PERIOD_NS = 200_000_000
CANCEL_S = 2.0  # longest wait for the robot to drop a goal
ASK_AGAIN_S = 1.0  # an answer can get lost while two nodes are still discovering each other
STEADY_S = 1.0  # how often an active node is asked for its state; a dead one is missed sooner, by its topics
TRANSITIONS = {"configure": 1, "activate": 3}  # lifecycle_msgs/Transition
CHARGE_RESULTS = {Shutdown.NONE: 1, Shutdown.NORMAL: 1, Shutdown.ERROR: 3, Shutdown.EMERGENCY: 3}


@dataclass(frozen=True)
class SupervisorParameters:
    connector: str = parameter(
        "ccs2", "connector the robot carries for this EVSE", choices=("ccs2", "ccs1", "nacs", "chademo", "acdp")
    )
    protocol: str = parameter(
        "ccs",
        "family of the vehicle's protocol; acdp: it talks before contact and asks for the plug (v2g: link acdp)",
        choices=("ccs", "chademo", "acdp"),
    )
    managed: list[str] = parameter(
        ["/power", "pilot", "v2g", "chademo", "/robot", "/backend"], "nodes brought up in this order"
    )
    cable__max_current_a: float = parameter(400.0, "rating of cable and plug", unit="A", low=0.0, high=1000.0)
    export__max_power_w: float = parameter(
        0.0, "export that the grid connection permits without the back end's word", unit="W", low=0.0, high=1e7
    )
    memory: str = parameter(
        "",
        "file that keeps latch and session over restarts ({evse} = its number), past faults beside it, empty: not kept",
        unsafe="",
    )
    free_vend: bool = parameter(False, "authorise every vehicle without asking the back end", unsafe=True)
    autocharge: bool = parameter(
        False, "take the vehicle's EVCCID as its token; it is no secret and can be imitated", unsafe=True
    )
    limits__pilot_confirm_s: float = parameter(3.0, "from end of connecting to pilot B", unit="s", low=0.5, high=30.0)
    limits__linking_s: float = parameter(150.0, "from pilot 5 % to the cable check", unit="s", low=10.0, high=3600.0)
    limits__wake_after_s: float = parameter(
        20.0, "silence of a plugged vehicle until state F calls it, 0 = never (ISO 15118-3)", unit="s", low=0.0,
        high=120.0
    )
    limits__cable_check_s: float = parameter(40.0, "insulation test (ISO 15118: 40 s)", unit="s", low=5.0, high=60.0)
    limits__precharge_s: float = parameter(15.0, "to the vehicle's voltage", unit="s", low=1.0, high=60.0)
    limits__vehicle_stop_s: float = parameter(20.0, "the vehicle's own orderly stop", unit="s", low=1.0, high=120.0)
    limits__stopping_s: float = parameter(30.0, "from current off to the session's end", unit="s", low=1.0, high=120.0)
    limits__robot_s: float = parameter(180.0, "one action of the robot at this bay", unit="s", low=10.0, high=1800.0)
    limits__queue_s: float = parameter(
        1800.0, "for a robot that works for other EVSEs first", unit="s", low=10.0, high=7200.0
    )
    limits__max_replugs: int = parameter(1, "how often a failed link is plugged again", low=0, high=5)
    limits__max_wakes: int = parameter(1, "how often the pilot is pulsed when no vehicle matches", low=0, high=5)
    limits__pause_s: float = parameter(3600.0, "a vehicle's pause, plugged in", unit="s", low=10.0, high=86_400.0)
    arm_follows: bool = parameter(False, "the arm cannot let go and follows the mated plug passively")
    node_age_grace_ms: int = parameter(
        0, "added to the 300 ms of a node's liveliness, for a desk without real-time scheduling", unit="ms", low=0,
        high=2000, unsafe=bool
    )

    def limits(self) -> Limits:
        names = {f.name for f in dataclasses.fields(Limits)}
        values = {n: getattr(self, f"limits__{n}") for n in names if hasattr(self, f"limits__{n}")}
        if self.protocol != "ccs":  # nobody there reads the control pilot while asleep
            values["wake_after_s"] = 0.0
        return Limits(**values, follows=self.arm_follows, talks_first=self.protocol == "acdp")


class Supervisor(StationNode):
    """ROS shell of supervisor.flow."""

    parameters: SupervisorParameters

    def __init__(self) -> None:
        super().__init__("supervisor", SupervisorParameters)
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._heard = Heard(self.evse)
        self._session = Session(since=now_ns() / 1e9)
        self._token = ("", "", False)  # id token, type, already authorised
        self._charge: tuple[Any, Future] | None = None
        self._goal_sent = 0
        self._goal_runs = False  # sent and not ended
        self._goal_waits = (0, 0.0)  # a goal that waits for that, and since when [s]
        self._goal_handle: Any = None
        start = now_ns() // 1_000_000
        self._numbers = {name: Numbered(start) for name in ("permit", "motion", "pilot", "state")}
        self._state_sent_at = 0.0
        self._permits_sent_ns = self._pilot_sent_ns = 0
        self._thread: threading.Thread | None = None
        self._meter_start: tuple[float, float] | None = None
        self._history: memory.FaultHistory | None = None

    # Life cycle.
    def configure(self) -> None:
        p = self.parameters
        self._limits = p.limits()
        self._heard.pilotless = p.protocol == "chademo"
        self._heard.slow_node_grace_ns = p.node_age_grace_ms * 1_000_000
        self._remember()
        evse = self.evse
        self._permit = self.publisher("power/permit", evse)
        self._motion = self.publisher("robot/permit", evse)
        self._pilot = self.publisher("pilot/command", evse)
        self._state = self.publisher("session/state", evse)
        self._event = self.publisher("session/event", evse)
        for name, key in {
            "pilot/state": "pilot",
            "power/state": "power",
            "power/limits": "limits",
            "power/meter": "meter",
            "vehicle/link": "link",
            "vehicle/target": "target",
            "bay/state": "bay",
            "backend/limit": "limit",
        }.items():
            self.subscribe(name, partial(self._hear, key), evse)
        for name, key in {"/safety/state": "safety", "/robot/state": "robot", "/backend/state": "backend"}.items():
            self.subscribe(name, partial(self._hear, key))
        self.subscribe("fault", self._hear_fault, evse)
        self.subscribe("/fault", self._hear_fault)
        self.subscribe("backend/request", self._hear_request, evse)
        self.create_service(srv.ResetFault, "reset", self._reset)
        self._authorize = self.create_client(srv.Authorize, "/authorize")
        self._robot = {
            Goal.CONNECT: ActionClient(self, action.Connect, "/robot/connect"),
            Goal.RELEASE: ActionClient(self, action.Release, "/robot/release"),
            Goal.DISCONNECT: ActionClient(self, action.Disconnect, "/robot/disconnect"),
        }
        self._charge_server = ActionServer(
            self,
            action.Charge,
            "charge",
            execute_callback=self._execute_charge,
            goal_callback=self._accept_charge,
            cancel_callback=self._cancel_charge,
        )
        namespace = self.get_namespace().rstrip("/")
        names = [n if n.startswith("/") else f"{namespace}/{n}" for n in p.managed]
        self._bringup = Bringup(names)
        self._get_state = {n: self.create_client(GetState, f"{n}/get_state") for n in names}
        self._change_state = {n: self.create_client(ChangeState, f"{n}/change_state") for n in names}
        self._asked_at: dict[str, float] = {}  # node -> when its state was asked for and not yet answered [s]
        self._told_at: dict[str, float] = {}  # node -> when it last answered [s]
        self.create_timer(0.2, self._watch_nodes)

    def activate(self) -> None:
        self._ending.clear()
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Permits end; the others come to rest by themselves."""
        self._ending.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=1.0)
            self._thread = None

    def make_safe(self) -> None:
        """Withdraw every permit before the process ends."""
        if self._thread is None:
            return
        self.deactivate()
        self._publish_permits(Commands(reason="the supervisor ends"))

    # What is heard.
    def _hear(self, key: str, message: Any) -> None:
        with self._lock:
            decisive = self._heard.message(key, message)
        if decisive:  # the rest is read in time by the loop's own period
            self._wake.set()

    def _hear_fault(self, fault: msg.Fault) -> None:
        if fault.evse in (0, self.evse) and fault.source != self.get_fully_qualified_name():
            with self._lock:
                self._heard.fault(fault)
                if fault.active:
                    self._note_fault(fault.code, fault.severity, fault.source, fault.session_id, fault.text)
            self._wake.set()

    def _hear_request(self, request: msg.BackendRequest) -> None:
        kinds = msg.BackendRequest
        with self._lock:
            if request.kind == kinds.KIND_START:
                self._token = (request.id_token, request.token_type, request.authorized)
            elif request.kind == kinds.KIND_STOP and request.session_id in ("", self._session.session_id):
                self._heard.stop_asked = "Remote"
            elif request.kind in (kinds.KIND_AVAILABLE, kinds.KIND_UNAVAILABLE):
                self._heard.available = request.kind == kinds.KIND_AVAILABLE
        self._wake.set()

    def _reset(self, request: Any, response: Any) -> Any:
        with self._lock:
            now = now_ns()
            self._session, refusal = flow.reset(self._session, self._heard.inputs(self._session, now), now / 1e9)
            if not refusal:
                self._keep()
                self._say("reset", f"by {request.acknowledged_by or 'a person on site'}")
        response.accepted = not refusal
        response.text = refusal or "reset; nothing was started"
        self._wake.set()
        return response

    # The loop.
    def _loop(self) -> None:
        while not self._ending.is_set():
            self._wake.wait(LOOP_S)
            self._ending.wait(SHORTEST_CYCLE_S)
            self._wake.clear()
            with self._lock:
                self._cycle()

    def _cycle(self) -> None:
        stamp = now_ns()
        now = stamp / 1e9
        before = self._session
        inputs = self._heard.inputs(before, stamp)
        session, events = flow.step(before, inputs, now, self._limits)
        if session.phase == Phase.POSITIONING and not session.session_id:
            session = replace(session, session_id=str(uuid.uuid4()))
            self._new_session()
        self._session = session
        commands = flow.command(session, inputs, self._limits)
        self._publish_permits(commands)
        if (session.phase, session.emergency_latched) != (before.phase, before.emergency_latched):
            self._keep()
        if session.fault and session.fault != before.fault:
            name = self.get_fully_qualified_name()
            self._note_fault(session.fault, Severity.STOP, name, session.session_id, session.text)
        for event in events:
            self._say(event, session.text)
        if session.phase != before.phase:
            self.get_logger().info(f"{before.phase.name} -> {session.phase.name}: {session.text}")
            self._say(session.phase.name, session.text)
            self._wake.set()  # the next phase may follow at once
        self._publish_state(commands, now)
        self._drive_robot(commands)
        self._drive_authorization(session)
        self._drive_charge(before)

    def _new_session(self) -> None:
        h = self._heard
        h.authorization, h.stop_asked, h.goal_grasped = Authorization.NONE, "", False
        self._meter_start = None

    def _publish_permits(self, commands: Commands) -> None:
        """At once on every change, and at 20 Hz."""
        session, p = self._session, self.parameters
        now = now_ns()
        due = now - self._permits_sent_ns >= PERMIT_PERIOD_NS
        if due:
            self._permits_sent_ns = now
        content = permit(commands, self._heard.ceilings(p.cable__max_current_a, p.export__max_power_w))
        number, new = self._numbers["permit"].take((content, session.session_id))
        if content.purpose == Purpose.INSULATION_TEST and session.test_permit == 0:
            self._session = session = replace(session, test_permit=number)
        if new or due:
            self._publish_charge_permit(commands, content, number)
        motion = (commands.zone, commands.follow, session.session_id)
        number, new = self._numbers["motion"].take(motion)
        if new or due:
            self._publish_motion_permit(commands, number)
        number, new = self._numbers["pilot"].take((commands.pilot, commands.duty))
        if new or now - self._pilot_sent_ns >= STATE_PERIOD_NS:
            self._pilot_sent_ns = now
            pulse_s = self._limits.wake_pulse_s if commands.pilot == PilotMode.PULSE_F else 0.0
            command = fill(msg.PilotCommand(), stamp_ns=now_ns(), number=number, mode=commands.pilot)
            self._pilot.publish(fill(command, duty=commands.duty, pulse_s=pulse_s))

    def _publish_charge_permit(self, commands: Commands, content: Permit, number: int) -> None:
        self._permit.publish(
            fill(
                msg.ChargePermit(),
                stamp_ns=now_ns(),
                number=number,
                session_id=self._session.session_id,
                reason=commands.reason,
                **vars(content),
            )
        )
    def _publish_motion_permit(self, commands: Commands, number: int) -> None:
        self._motion.publish(
            fill(
                msg.MotionPermit(),
                stamp_ns=now_ns(),
                number=number,
                session_id=self._session.session_id,
                evse=self.evse,
                zone=commands.zone,
                passive_follow=commands.follow,
                reason=commands.reason,
            )
        )

    def _publish_state(self, commands: Commands, now: float) -> None:
        s, h = self._session, self._heard
        link = h.last.get("link")
        if link is not None and link.session_id != s.session_id:
            link = None
        protocol = link.protocol if link and link.protocol else self.parameters.protocol
        soc = link.soc if link and s.session_id else -1.0
        content = (s, h.authorization, protocol, int(soc), commands.purpose)
        number, new = self._numbers["state"].take(content)
        if not new and now - self._state_sent_at < STATE_PERIOD_S:
            return
        self._state_sent_at = now
        self._state.publish(
            fill(
                msg.SessionState(),
                stamp_ns=now_ns(),
                time=self.get_clock().now().to_msg(),
                number=number,
                evse=self.evse,
                session_id=s.session_id,
                phase=s.phase,
                phase_stamp_ns=int(s.since * 1e9),
                authorization=h.authorization,
                stop_requested=s.stop_requested_at >= 0,
                shutdown=s.shutdown,
                stop_reason=s.stop_reason,
                protocol=protocol,
                connector=self.parameters.connector,
                mated=s.mated,
                locked=bool(link and link.lock == msg.VehicleLink.LOCK_LOCKED),
                insulation_passed=s.insulation_passed,
                output_on=commands.purpose == Purpose.TRANSFER,
                emergency_latched=s.emergency_latched,
                fault=s.fault,
                soc=soc,
                text=s.text,
            )
        )

    def _say(self, name: str, text: str) -> None:
        self._event.publish(
            fill(
                msg.SessionEvent(),
                stamp_ns=now_ns(),
                time=self.get_clock().now().to_msg(),
                evse=self.evse,
                session_id=self._session.session_id,
                name=name,
                text=text,
            )
        )

    # The robot.
    def _drive_robot(self, commands: Commands) -> None:
        if commands.goal == Goal.NONE:
            if self._goal_handle is not None:
                self._goal_handle.cancel_goal_async()
                self._goal_handle = None
            return
        client = self._robot[commands.goal]
        if commands.goal_number <= self._goal_sent or not client.server_is_ready():
            return
        if self._goal_runs and not self._dropped(commands.goal_number):
            return
        self._goal_sent = number = commands.goal_number
        self._goal_runs = True
        self._heard.goal_grasped = False
        goal = client._action_type.Goal(evse=self.evse, session_id=self._session.session_id)
        if commands.goal == Goal.CONNECT:
            goal.connector = self.parameters.connector
        future = client.send_goal_async(goal, feedback_callback=lambda m: self._on_feedback(number, m.feedback))
        future.add_done_callback(lambda f: self._on_goal_answer(number, f))

    def _dropped(self, number: int) -> bool:
        """The goal ``number`` comes while another runs: the robot drops that one first. A dead one never says so."""
        now = now_ns() / 1e9
        if self._goal_waits[0] != number:
            self._goal_waits = (number, now)
        if self._goal_handle is not None:
            self._goal_handle.cancel_goal_async()
            self._goal_handle = None
        return now - self._goal_waits[1] > CANCEL_S

    def _on_feedback(self, number: int, feedback: Any) -> None:
        if number == self._goal_sent and getattr(feedback, "grasped", False):
            with self._lock:
                self._heard.goal_grasped = True
            self._wake.set()

    def _on_goal_answer(self, number: int, future: Future) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self._on_goal_end(number, action.Connect.Result.ERROR_BUSY, "the robot refused the goal")
            return
        with self._lock:
            self._goal_handle = handle
        result = handle.get_result_async()
        result.add_done_callback(lambda f: self._on_goal_end(number, f.result().result.error, f.result().result.text))

    def _on_goal_end(self, number: int, error: int, text: str) -> None:
        with self._lock:
            if number != self._goal_sent:
                return
            self._goal_handle = None
            self._goal_runs = False
            self._heard.goal_done, self._heard.goal_error = number, error
            self._heard.goal_done_at = now_ns() / 1e9
            if error:
                self._say("robot", text)
        self._wake.set()

    # Authorisation.
    def _drive_authorization(self, session: Session) -> None:
        h = self._heard
        open_phase = Phase.POSITIONING <= session.phase <= Phase.LINKING
        if not open_phase or h.authorization != Authorization.NONE:
            return
        token, kind, authorized = self._token
        if not token:
            token, kind = self._vehicle_token(session)
        if not token and self.parameters.free_vend:
            token, kind = "free", "NoAuthorization"
        if not token:
            return
        if authorized and session.session_id:
            h.authorization = Authorization.ACCEPTED
            self._token = ("", "", False)
            self._say("authorised", "by the back end")
            return
        if not self._authorize.service_is_ready():
            return
        h.authorization = Authorization.PENDING
        self._token = ("", "", False)
        request = srv.Authorize.Request(
            evse=self.evse, session_id=session.session_id, id_token=token, token_type=kind or "Central"
        )
        future = self._authorize.call_async(request)
        future.add_done_callback(lambda f: self._on_authorized(session.session_id, f))

    def _vehicle_token(self, session: Session) -> tuple[str, str]:
        """The token that the vehicle itself shows: its contract (Plug and Charge), or its address (Autocharge)."""
        link = self._heard.last.get("link")
        if link is None or not link.identity or link.session_id != session.session_id or not session.session_id:
            return "", ""
        if link.contract:
            return link.identity, "eMAID"
        return (link.identity, "MacAddress") if self.parameters.autocharge else ("", "")

    def _on_authorized(self, session_id: str, future: Future) -> None:
        with self._lock:
            if session_id != self._session.session_id:
                return
            answer = future.result()
            accepted = answer is not None and answer.status == srv.Authorize.Response.STATUS_ACCEPTED
            self._heard.authorization = Authorization.ACCEPTED if accepted else Authorization.REFUSED
            self._say("authorised" if accepted else "refused", answer.reason if answer else "no answer")
        self._wake.set()

    # The charge action.
    def _accept_charge(self, goal: Any) -> GoalResponse:
        with self._lock:
            return GoalResponse.REJECT if self._charge else GoalResponse.ACCEPT

    def _cancel_charge(self, handle: Any) -> CancelResponse:
        with self._lock:
            self._heard.stop_asked = "Local"
        self._wake.set()
        return CancelResponse.ACCEPT

    async def _execute_charge(self, handle: Any) -> Any:
        future: Future = Future(executor=self.executor)
        with self._lock:
            self._charge = (handle, future)
            if handle.request.id_token:
                self._token = (handle.request.id_token, handle.request.token_type, False)
        self._wake.set()
        result = await future
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.result == action.Charge.Result.RESULT_FAULTED:
            handle.abort()
        else:
            handle.succeed()
        return result

    def _drive_charge(self, before: Session) -> None:
        """Feedback while it goes, the result when the session ends."""
        if self._charge is None:
            return
        handle, future = self._charge
        s = self._session
        meter = self._heard.last.get("meter")
        if meter is not None and self._meter_start is None and s.phase >= Phase.LINKING:
            self._meter_start = (meter.import_wh, meter.export_wh)
        imported = meter.import_wh - self._meter_start[0] if meter and self._meter_start else 0.0
        exported = meter.export_wh - self._meter_start[1] if meter and self._meter_start else 0.0
        if s.phase != before.phase and s.phase in (Phase.DEPARTING, Phase.FAULTED):
            self._charge = None
            stopped = s.stop_reason in ("Remote", "Local", "DeAuthorized") and not s.fault
            result = fill(
                action.Charge.Result(),
                result=action.Charge.Result.RESULT_STOPPED if stopped else CHARGE_RESULTS[s.shutdown],
                session_id=s.session_id,
                stop_reason=s.stop_reason,
                fault=s.fault,
                energy_wh=imported,
                exported_wh=exported,
                text=s.text,
            )
            future.set_result(result)
        elif s.phase != before.phase:
            power = self._heard.last.get("power")
            handle.publish_feedback(
                fill(
                    action.Charge.Feedback(),
                    phase=s.phase,
                    soc=self._heard.last["link"].soc if "link" in self._heard.last else -1.0,
                    power_w=power.power_w if power else 0.0,
                    energy_wh=imported,
                )
            )

    # Nodes.
    def _watch_nodes(self) -> None:
        now = now_ns() / 1e9
        for name, client in self._get_state.items():
            if self._bringup.state.get(name) == "active" and now - self._told_at.get(name, 0.0) < STEADY_S:
                continue  # asking the graph costs more than all the rest
            if not client.service_is_ready():
                self._asked_at.pop(name, None)
                self._node_state(name, "")
            elif now - self._asked_at.get(name, 0.0) > ASK_AGAIN_S:
                self._asked_at[name] = now
                future = client.call_async(GetState.Request())
                future.add_done_callback(lambda f, name=name, now=now: self._on_node_state(name, now, f))
        self._bring_up(now)

    def _bring_up(self, now: float) -> None:
        for name, transition in self._bringup.next(now):
            request = ChangeState.Request()
            request.transition.id = TRANSITIONS[transition]
            future = self._change_state[name].call_async(request)
            future.add_done_callback(lambda f, name=name: self._on_changed(name, f))

    def _on_changed(self, name: str, future: Future) -> None:
        answer = future.result()
        self._bringup.done(name, bool(answer and answer.success))
        with self._lock:
            self._heard.nodes_ready = self._bringup.ready
        self._bring_up(now_ns() / 1e9)  # the next in line need not wait for the timer

    def _on_node_state(self, name: str, asked_at: float, future: Future) -> None:
        self._asked_at.pop(name, None)
        self._told_at[name] = now_ns() / 1e9
        answer = future.result()
        # A state asked for before a transition is older than that.
        if name not in self._bringup.asked or asked_at > self._bringup.tried.get(name, 0.0):
            self._node_state(name, answer.current_state.label if answer else "")

    def _node_state(self, name: str, state: str) -> None:
        with self._lock:
            if self._bringup.heard(name, state):
                self.get_logger().warning(f"{name} is {state or 'gone'}")
                self._heard.forget_node(name)
            self._heard.nodes_ready = self._bringup.ready

    # What survives restarts.
    @property
    def _memory(self) -> Path | None:
        name = self.parameters.memory.replace("{evse}", str(self.evse))
        return Path(name) if name else None

    def _remember(self) -> None:
        path = self._memory
        if path is None:
            return
        if not path.parent.is_dir():
            raise StartError(f"parameter memory = {path}: {path.parent} is no directory")
        self._session = memory.load(path, now_ns() / 1e9)
        self._history = memory.FaultHistory(path.with_suffix(".faults.jsonl"))
        if self._session.session_id:
            self.get_logger().warning(f"session {self._session.session_id}: {self._session.text}")

    def _keep(self) -> None:
        path = self._memory
        if path is None:
            return
        try:
            memory.save(path, self._session)
        except OSError as error:
            self.get_logger().error(f"cannot keep the session over a restart: {error}", throttle_duration_sec=10.0)

    def _note_fault(self, code: int, severity: int, source: str, session_id: str, text: str) -> None:
        if self._history is None:
            return
        when = datetime.fromtimestamp(self.get_clock().now().nanoseconds / 1e9, timezone.utc)
        entry = {"time": when.isoformat(timespec="milliseconds"), "code": int(code), "severity": int(severity)}
        try:
            self._history.add({**entry, "source": source, "session_id": session_id, "text": text})
        except OSError as error:
            self.get_logger().error(f"cannot keep a fault: {error}", throttle_duration_sec=10.0)

    def diagnose(self) -> Diagnosis:
        with self._lock:
            s = self._session
            values = {
                "phase": s.phase.name,
                "session": s.session_id or "none",
                "emergency latched": s.emergency_latched,
                "authorization": self._heard.authorization.name,
            }
            if s.phase == Phase.UNAVAILABLE and hasattr(self, "_bringup"):
                values["waiting for"] = ", ".join(self._bringup.missing()) or "nothing"
            if self._history is not None and self._history.entries:
                last = self._history.entries[-1]
                values["faults kept"] = len(self._history.entries)
                values["last fault"] = f"{last.get('code')} at {last.get('time')}: {last.get('text')}"
            standing = self._heard.gravest(s.session_id)
            if standing:
                values["gravest fault"] = f"{standing.code} from {standing.source}: {standing.text}"
            level = ERROR if s.phase == Phase.FAULTED else WARN if s.phase == Phase.UNAVAILABLE else OK
            if standing and standing.severity >= Severity.STOP:
                level = ERROR
            return level, s.text, values


def main() -> None:
    def factory() -> Supervisor:
        node = Supervisor()
        node.trigger_configure()
        node.trigger_activate()
        return node

    run(factory)


if __name__ == "__main__":
    main()
