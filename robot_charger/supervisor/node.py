"""The supervisor of one EVSE: the automated session and its permits.

Publishes (in /evseN): ``power/permit`` and ``robot/permit`` (20 Hz and at once), ``pilot/command``,
``session/state`` (5 Hz and at once), ``session/event``, ``fault``.
Subscribes: every topic of its EVSE, ``/safety/state``, ``/robot/state``, ``/backend/state``, ``/fault``.
Serves: action ``charge``, service ``reset``. Calls: ``/authorize``, ``/robot/connect``, ``/robot/release``,
``/robot/disconnect`` and the life-cycle services of the nodes it manages.
Parameters: ``supervisor.parameters.SupervisorParameters``.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rclpy.task import Future

from robot_charger import action, msg, srv
from robot_charger.common.actions import OneGoalServer, RobotAction
from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Severity
from robot_charger.common.node import ERROR, OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.topics import fill
from robot_charger.supervisor import flow, memory
from robot_charger.supervisor.charging import ChargeAction
from robot_charger.supervisor.goals import RobotGoals
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.managed import ManagedNodes
from robot_charger.supervisor.model import Commands, Goal, Session
from robot_charger.supervisor.parameters import SupervisorParameters
from robot_charger.supervisor.permits import Numbered, permit
from robot_charger.supervisor.tokens import Token, TokenDesk
from robot_charger.words.values import (
    Authorization,
    AuthorizeStatus,
    BackendRequest,
    ChargePermit,
    Fault,
    Lock,
    Phase,
    PilotMode,
    Purpose,
    Request,
    VehicleLink,
)

EVSE_TOPICS = (
    "pilot/state",
    "power/state",
    "power/limits",
    "power/meter",
    "vehicle/link",
    "vehicle/target",
    "bay/state",
    "backend/limit",
)
STATION_TOPICS = ("/safety/state", "/robot/state", "/backend/state")
LOOP_S = 0.04  # longest wait for news; with the next it makes 20 Hz
SHORTEST_CYCLE_S = 0.01  # messages that come together are read together
PERMIT_PERIOD_NS = 48_000_000
STATE_PERIOD_S = 0.2
STATE_PERIOD_NS = 200_000_000


class Supervisor(StationNode):
    """ROS shell of supervisor.flow."""

    parameters: SupervisorParameters

    def __init__(self) -> None:
        super().__init__("supervisor", SupervisorParameters)
        self.parameters.check()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._heard = Heard(self.evse)
        self._session = Session(since=now_ns() / 1e9)
        self._tokens = TokenDesk()
        start = now_ns() // 1_000_000
        self._numbers = {name: Numbered(start) for name in ("permit", "motion", "pilot", "state")}
        self._state_sent_at = 0.0
        self._permits_sent_ns = self._pilot_sent_ns = 0
        self._thread: threading.Thread | None = None
        self._history: memory.FaultHistory | None = None

    # Life cycle.
    def configure(self) -> None:
        p = self.parameters
        self._limits = p.limits()
        self._heard.pilotless = p.protocol in ("chademo", "gbt")
        self._heard.ac_cable_a = p.cable__max_current_a if p.protocol == "ac" else 0.0
        self._heard.slow_node_grace_ns = p.node_age_grace_ms * 1_000_000
        self._remember()
        evse = self.evse
        self._permit = self.publisher("power/permit", evse)
        self._motion = self.publisher("robot/permit", evse)
        self._pilot = self.publisher("pilot/command", evse)
        self._state = self.publisher("session/state", evse)
        self._event = self.publisher("session/event", evse)
        for name in EVSE_TOPICS:
            self.subscribe(name, self._hear, evse)
        for name in STATION_TOPICS:
            self.subscribe(name, self._hear)
        self.subscribe("fault", self._hear_fault, evse, danger=self._suspect)
        self.subscribe("/fault", self._hear_fault, danger=self._suspect)
        self.subscribe("backend/request", self._hear_request, evse)
        self.serve(srv.ResetFault, "reset", self._reset)
        self._authorize = self.create_client(srv.Authorize, "/authorize")
        robot = {
            Goal.CONNECT: RobotAction(self, action.Connect, "/robot/connect"),
            Goal.RELEASE: RobotAction(self, action.Release, "/robot/release"),
            Goal.DISCONNECT: RobotAction(self, action.Disconnect, "/robot/disconnect"),
        }
        self._goals = RobotGoals(evse, p.connector, robot, self._heard, self._lock, self._wake.set, self._say)
        charge = self._charge = ChargeAction(self._heard, self._lock, self._take_token, self._wake.set)
        charge.server = OneGoalServer(self, action.Charge, "charge", charge.refuses, charge.started, charge.cancelled)
        namespace = self.get_namespace().rstrip("/")
        names = [n if n.startswith("/") else f"{namespace}/{n}" for n in p.managed]
        self._nodes = ManagedNodes(self, names, self._on_ready, self._on_fall)

    def activate(self) -> None:
        self._ending.clear()
        self._thread = self.thread("supervisor", self._loop)
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
    def _hear(self, value: object) -> None:
        with self._lock:
            decisive = self._heard.hear(value)
        if decisive:  # the rest is read in time by the loop's own period
            self._wake.set()

    def _hear_fault(self, fault: Fault) -> None:
        if fault.evse in (0, self.evse) and fault.source != self.get_fully_qualified_name():
            with self._lock:
                self._heard.fault(fault)
                if fault.active:
                    self._note_fault(fault.code, fault.severity, fault.source, fault.session_id, fault.text)
            self._wake.set()

    def _suspect(self, fault: Fault) -> None:
        """A fault message that cannot be: it stops what goes on, and does not stand."""
        if fault.evse in (0, self.evse):
            with self._lock:
                self._heard.suspect(fault, now_ns())
                self._note_fault(fault.code, fault.severity, fault.source, fault.session_id, fault.text)
            self._wake.set()

    def _on_ready(self, ready: bool) -> None:
        with self._lock:
            self._heard.nodes_ready = ready

    def _on_fall(self, name: str) -> None:
        with self._lock:
            self._heard.forget_node(name)

    def _take_token(self, token: str, kind: str) -> None:
        self._show(Token(token, kind))

    def _show(self, token: Token) -> None:
        if refusal := self._tokens.show(token, self._session.session_id, self._heard.authorization):
            self.get_logger().warning(f"a start request does not count: {refusal}", throttle_duration_sec=1.0)

    def _hear_request(self, request: BackendRequest) -> None:
        with self._lock:
            session_id = self._session.session_id
            if request.kind == Request.START and session_id:
                named = request.session_id or session_id
                self._show(Token(request.id_token, request.token_type, request.authorized, named))
            elif request.kind == Request.STOP and session_id and request.session_id in ("", session_id):
                self._heard.stop_asked = "Remote"
            elif request.kind in (Request.AVAILABLE, Request.UNAVAILABLE):
                self._heard.available = request.kind == Request.AVAILABLE
            elif request.kind in (Request.UNLOCK, Request.RESET):
                self._reset_from_afar(request.kind == Request.UNLOCK)
        self._wake.set()

    def _reset_from_afar(self, unlock: bool) -> None:
        """The back end's reset, or its wish for the plug: a session that is plugged in ends in order for it."""
        if unlock and self._session.mated and self._session.phase != Phase.FAULTED:
            self._heard.stop_asked = "Remote"
            return
        now = now_ns()
        inputs = self._heard.inputs(self._session, now)
        self._session, refusal = flow.reset_from_afar(self._session, inputs, now / 1e9, unlock)
        if not refusal:
            self._keep()
            self._say("reset", "by the back end")

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
        if session.phase == Phase.IDLE and before.phase != Phase.IDLE and before.session_id:
            self._tokens.forget()  # the bay is empty: what was shown for that vehicle does not wait for the next
        self._publish_state(commands, now)
        self._goals.drive(commands, self._session.session_id, now)
        self._drive_authorization(session)
        self._charge.drive(before, self._session)

    def _new_session(self) -> None:
        h = self._heard
        h.authorization, h.stop_asked, h.goal_grasped = Authorization.NONE, "", False
        self._charge.begin()

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

    def _publish_charge_permit(self, commands: Commands, content: ChargePermit, number: int) -> None:
        session_id = self._session.session_id
        now = replace(content, stamp_ns=now_ns(), number=number, session_id=session_id, reason=commands.reason)
        self._permit.publish(fill(msg.ChargePermit(), **vars(now)))

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

    def _waiting(self) -> str:
        """Which nodes an unavailable EVSE waits for, each with its state; empty when it is not that."""
        s = self._session
        if s.phase != Phase.UNAVAILABLE or s.emergency_latched or self._heard.nodes_ready:
            return ""
        return ("waiting for " + ", ".join(self._nodes.missing()))[:200]

    def _publish_state(self, commands: Commands, now: float) -> None:
        s, h = self._session, self._heard
        link = h.newest.of(VehicleLink)
        if link is not None and link.session_id != s.session_id:
            link = None
        protocol = link.protocol if link and link.protocol else self.parameters.protocol
        soc = link.soc if link and s.session_id else -1.0
        text = self._waiting() or s.text
        content = (s, h.authorization, protocol, int(soc), commands.purpose, text)
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
                retrying=s.retrying,
                locked=bool(link and link.lock == Lock.LOCKED),
                insulation_passed=s.insulation_passed,
                output_on=commands.purpose == Purpose.TRANSFER,
                emergency_latched=s.emergency_latched,
                fault=s.fault,
                soc=soc,
                text=text,
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

    # Authorisation.
    def _drive_authorization(self, session: Session) -> None:
        h = self._heard
        open_phase = Phase.POSITIONING <= session.phase <= Phase.LINKING
        if not open_phase or h.authorization != Authorization.NONE:
            return
        token = self._tokens.waiting(session.session_id) or self._own_token(session.session_id)
        if token is None or not session.session_id:
            return
        if token.authorized:
            h.authorization = Authorization.ACCEPTED
            self._tokens.forget()
            self._say("authorised", "by the back end")
            return
        if not self._authorize.service_is_ready():
            return
        h.authorization = Authorization.PENDING
        self._tokens.forget()
        request = srv.Authorize.Request(
            evse=self.evse, session_id=session.session_id, id_token=token.id, token_type=token.kind or "Central"
        )
        future = self._authorize.call_async(request)
        future.add_done_callback(lambda f: self._on_authorized(session.session_id, f))

    def _own_token(self, session_id: str) -> Token | None:
        """The token that the vehicle shows itself, or that of a station which charges for free."""
        token, kind = self._heard.vehicle_token(session_id, self.parameters.autocharge)
        if not token and self.parameters.free_vend:
            token, kind = "free", "NoAuthorization"
        return Token(token, kind) if token else None

    def _on_authorized(self, session_id: str, future: Future) -> None:
        with self._lock:
            if session_id != self._session.session_id:
                return
            answer = future.result()
            accepted = answer is not None and answer.status == AuthorizeStatus.ACCEPTED
            self._heard.authorization = Authorization.ACCEPTED if accepted else Authorization.REFUSED
            self._say("authorised" if accepted else "refused", answer.reason if answer else "no answer")
        self._wake.set()

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
            if s.phase == Phase.UNAVAILABLE and hasattr(self, "_nodes"):
                values["waiting for"] = ", ".join(self._nodes.missing()) or "nothing"
            at = now_ns()
            if held := flow.waits_for(s, self._heard.inputs(s, at), at / 1e9, self._limits):
                values["waiting for"] = held
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
