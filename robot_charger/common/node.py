"""The ROS shell that all nodes of the station share: life cycle, parameters, faults, diagnostics.

A node says what it does in five hooks (``configure``, ``activate``, ``deactivate``, ``cleanup``, ``make_safe``)
and one report (``diagnose``). Transitions are driven by the supervisor over the standard life-cycle services.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, ParameterUninitializedException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from robot_charger import msg
from robot_charger.common import configuration
from robot_charger.common import parameters as parameters_module
from robot_charger.common.clock import now_ns
from robot_charger.common.executor import LeanExecutor
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.listening import Listening
from robot_charger.common.parameters import ParameterError
from robot_charger.common.process import PARENT, StopSignal, end_quietly, end_with_parent, refuse, require_logs
from robot_charger.common.topics import EVENTS, WATCHED, checked, checked_service, fill, topic
from robot_charger.common.transitions import Transitions
from robot_charger.words.border import Border

Diagnosis = tuple[int, str, dict[str, Any]]
OK, WARN, ERROR = 0, 1, 2


class StartError(RuntimeError):
    """A node cannot be configured or activated; the text says what is wrong and what would be right."""


class StationNode(LifecycleNode):
    """Base of every node.

    Parameters: those of ``parameters_class`` (see common.parameters), declared with descriptors. They are
    read-only once the node is active, but for those marked ``live``.
    Publishes: ``fault`` (msg/Fault) and ``/diagnostics`` (1 Hz), in every life-cycle state.
    """

    def __init__(self, name: str, parameters_class: type) -> None:
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        super().__init__(name)
        self._parameters_class = parameters_class
        self.active = False
        self.refusal = ""  # why this node cannot be configured: a child of the command line tool ends with it
        self._faults: dict[tuple[int, int], FaultReport] = {}
        self._fault_lock = threading.Lock()
        self._listening = Listening(lambda text: self.get_logger().warning(text))
        self.failure = ""  # an unexpected exception: the process makes its outputs safe and ends with status 1
        self._failing = False
        self.border = Border(lambda text: self.get_logger().warning(text))
        self._transitions = Transitions(self)
        self.parameters = self._declare()
        self.add_on_set_parameters_callback(self._on_set)
        self._fault_publisher = self.create_publisher(msg.Fault, "fault", EVENTS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)
        self.create_timer(1.0, self._publish_diagnostics)

    # What a node fills in.
    def configure(self) -> None:
        """Open the outside world. Raises StartError, ParameterError or OSError: the node stays unconfigured."""

    def activate(self) -> None:
        """Begin to act."""

    def deactivate(self) -> None:
        """Stop acting; outputs safe."""

    def cleanup(self) -> None:
        """Close what configure opened."""

    def make_safe(self) -> None:
        """Last act of the process: nothing energised, nothing moving. Called from any state."""

    def changed(self) -> None:
        """A live parameter changed; ``self.parameters`` holds the new values."""

    def diagnose(self) -> Diagnosis:
        """Level (OK, WARN, ERROR), one sentence, values with units."""
        return OK, "", {}

    # What a node uses.
    def create_timer(  # type: ignore[override]  # the rest as it comes with this release
        self, timer_period_sec: float, callback: Any, callback_group: Any = None, clock: Any = None, **options: Any
    ) -> Any:
        """rclpy's, but on the monotonic clock: a wall clock that is set back would stop the other kind for as long."""
        return super().create_timer(timer_period_sec, callback, callback_group, clock or self._steady, **options)

    def subscribe(
        self,
        name: str,
        callback: Callable[[Any], None],
        evse: int | None = None,
        danger: Callable[[Any], None] | None = None,
    ) -> Any:
        """Subscribe to a topic of the station table (common.topics).

        ``callback`` gets checked values (words.values), or the message itself where it is a standard one. Of a refused
        message it gets the danger, if there is one (words.border); with ``danger``, that is called instead.
        """
        full_name, kind, qos = topic(name, evse)
        events = self._listening.callbacks(full_name) if qos in WATCHED else None
        receive = checked(self.border, full_name, kind, callback, danger)
        return self.create_subscription(kind, full_name, self.guarded(name, receive), qos, event_callbacks=events)

    def serve(self, kind: Any, name: str, answer: Callable[[Any, Any], Any], **options: Any) -> Any:
        """Serve ``kind``. A request with an unknown enumeration value or a number that cannot be is answered refused.

        ``answer`` gets a checked request and the response to fill in.
        """
        return self.create_service(kind, name, checked_service(self.border, kind, name, answer), **options)

    def guarded(self, name: str, callback: Callable[..., Any]) -> Callable[[Any], None]:
        """``callback`` for one message; what it raises ends the process in order (``fail``), never in the executor."""

        def call(message: Any) -> None:
            try:
                callback(message)
            except Exception as error:
                self.fail(name, error)

        return call

    def thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """A thread that never dies quietly: what ``work`` raises ends the process in order (``fail``)."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:
                if self.context.ok():  # publishers raise when the context ended first
                    self.fail(name, error)

        return threading.Thread(target=guarded, name=name, daemon=True)

    def fail(self, what: str, error: BaseException) -> None:
        """Report an unexpected exception; ``run`` then makes the outputs safe and ends with status 1. Any thread."""
        with self._fault_lock:
            if self._failing:
                return
            self._failing = True
        text = f"{what} failed: {error!r}"
        self.get_logger().fatal("".join(traceback.format_exception(error)))
        self.report(FaultReport(Code.INTERNAL, Severity.STOP, f"{text}; the node ends and is started again"))
        self.failure = text  # last: the process ends by it

    def publisher(self, name: str, evse: int | None = None) -> Any:
        """Publisher of a topic of the station table. ``publish`` may be called from any thread."""
        full_name, kind, qos = topic(name, evse)
        return self.create_publisher(kind, full_name, qos)

    @property
    def evse(self) -> int:
        """Number of the EVSE this node belongs to, from its namespace /evseN; 0 at the root."""
        namespace = self.get_namespace().strip("/")
        return int(namespace[4:]) if namespace.startswith("evse") and namespace[4:].isdigit() else 0

    def report(self, report: FaultReport, evse: int | None = None, session_id: str = "") -> None:
        """Publish the beginning or end of a fault, once per change. Callable from any thread."""
        evse = self.evse if evse is None else evse
        key = (int(report.code), evse)
        with self._fault_lock:
            known = key in self._faults
            if report.active:
                self._faults[key] = report
            else:
                self._faults.pop(key, None)
        if known == report.active:
            return
        if report.active and report.severity >= Severity.STOP:  # a line each: rclpy binds the severity to the line
            self.get_logger().error(f"{report.code.name.lower()}: {report.text}")
        elif report.active:
            self.get_logger().warning(f"{report.code.name.lower()}: {report.text}")
        else:
            self.get_logger().info(f"{report.code.name.lower()}: gone")
        self._fault_publisher.publish(
            fill(
                msg.Fault(),
                stamp_ns=now_ns(),
                time=self.get_clock().now().to_msg(),
                code=report.code,
                severity=report.severity,
                source=self.get_fully_qualified_name(),
                evse=evse,
                session_id=session_id,
                active=report.active,
                text=report.text,
            )
        )

    def standing_faults(self) -> list[FaultReport]:
        with self._fault_lock:
            return list(self._faults.values())

    # Life cycle.
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._step("activate", self.activate)
        if result == TransitionCallbackReturn.SUCCESS:
            super().on_activate(state)
            self.active = True
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        super().on_deactivate(state)
        return self._step("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step("clean up", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._step("make safe", self.make_safe)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._step("make safe", self.make_safe)

    def _step(self, name: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
            return TransitionCallbackReturn.SUCCESS
        except (StartError, ParameterError, OSError) as error:
            self.get_logger().error(f"cannot {name}: {error}")
            if name == "configure" and PARENT in os.environ:
                self.refusal = str(error)
        except Exception:
            self.get_logger().error(f"cannot {name}: {traceback.format_exc()}")
        return TransitionCallbackReturn.FAILURE

    # Parameters.
    def _declare(self) -> Any:
        values: dict[str, Any] = {}
        named = configuration.named_files(configuration.started(executable(), sys.argv))
        for name, (field, meaning) in parameters_module.fields_of(self._parameters_class).items():
            default = parameters_module.default_of(field)
            descriptor = ParameterDescriptor(description=meaning.describe())
            if meaning.low is not None or meaning.high is not None:
                low = meaning.low if meaning.low is not None else -1e12
                high = meaning.high if meaning.high is not None else 1e12
                kind = type(default[0]) if isinstance(default, list) and default else type(default)
                if kind is float:
                    descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
                elif kind is int:
                    descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
            override = self._parameter_overrides.get(name)
            if override is not None:  # refuse in our words before rclpy does in its own
                value = parameters_module.converted(name, named.get(name, override.value), default)
                if reason := meaning.refuse(name, value):
                    raise ParameterError(reason)
                if value or not isinstance(default, list):
                    self._parameter_overrides[name] = Parameter(name, value=value)
            try:
                if isinstance(default, list) and not default:
                    value = self.declare_parameter(name, Parameter.Type.STRING_ARRAY, descriptor).value or []
                else:
                    value = self.declare_parameter(name, default, descriptor).value
            except InvalidParameterTypeException as error:
                raise ParameterError(f"parameter {name} must be a {type(default).__name__}") from error
            except ParameterUninitializedException:
                value = []
            values[name] = list(value) if isinstance(default, list) else value
        known = set(values) | {"use_sim_time", "start_type_description_service"}
        for name in self._parameter_overrides:
            if name not in known and not name.startswith("qos_overrides"):
                raise ParameterError(f"parameter {name} is unknown: one of {', '.join(sorted(values))}")
        return parameters_module.build(self._parameters_class, values)

    def _on_set(self, changes: list[Parameter]) -> SetParametersResult:
        table = parameters_module.fields_of(self._parameters_class)
        values = {n: getattr(self.parameters, f.name) for n, (f, _) in table.items()}
        for change in changes:
            if change.name not in table:
                continue
            if self.active and not table[change.name][1].live:
                reason = f"parameter {change.name} is read-only while the node is active"
                return SetParametersResult(successful=False, reason=reason)
            values[change.name] = change.value
        try:
            self.parameters = parameters_module.build(self._parameters_class, values)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.changed()
        return SetParametersResult(successful=True)

    # Diagnostics.
    def _publish_diagnostics(self) -> None:
        level, text, values = self.diagnose()
        values = {**values, **self._listening.values(), **self.border.values()}
        lowered = parameters_module.lowered_safety(self.parameters)
        if lowered:
            level = max(level, WARN)
            values = {**values, "lowered safety": "; ".join(lowered)}
        if self._transitions.held:
            level, text = max(level, WARN), self._transitions.remedy
        for fault in self.standing_faults():
            level = max(level, ERROR if fault.severity >= Severity.STOP else WARN)
            text = text or fault.text
            values = {**values, f"fault {int(fault.code)}": f"{fault.code.name.lower()}: {fault.text}"}
        status = DiagnosticStatus(
            level=bytes([level]),
            name=self.get_fully_qualified_name(),
            message=text or ("active" if self.active else "not active"),
            hardware_id=self.get_namespace(),
            values=[KeyValue(key=str(k), value=str(v)) for k, v in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def executable() -> str:
    """The node that this process runs, from ``python -m robot_charger.NODE.node``."""
    return Path(sys.argv[0]).parent.name


def require_configuration() -> None:
    """End with one line for each fault in the parameter files of this process."""
    if executable() not in configuration.table():
        return
    troubles = configuration.check([configuration.started(executable(), sys.argv)], whole=False)
    for trouble in troubles[:-1]:
        print(trouble, file=sys.stderr)
    if troubles:
        refuse(str(troubles[-1]))


def run(factory: Callable[[], StationNode], before: Callable[[], None] | None = None) -> None:
    """Main of a node's process. ``before`` runs while the process has one thread and no ROS.

    SIGINT and SIGTERM end it by make_safe(), with the ROS context still alive to send the last zero.
    """
    faulthandler.enable()
    end_with_parent()
    stop = StopSignal()
    if before:
        before()
    require_logs()
    require_configuration()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = factory()
    except (ParameterError, StartError) as error:
        rclpy.try_shutdown()
        refuse(f"{executable()}: {error}")
    executor = LeanExecutor()
    executor.add_node(node)
    gc.collect()
    gc.freeze()  # start-up objects never again cost a collection pause
    try:
        while rclpy.ok() and not stop.event.is_set() and not node.refusal and not node.failure:
            try:
                executor.spin_once(timeout_sec=0.1)
            except RCLError as error:  # e.g. a life-cycle transition that this state does not have
                node.get_logger().warning(f"a request was refused: {error}")
            except ExternalShutdownException:
                raise
            except Exception as error:  # of a service or a timer
                node.fail("a callback", error)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.active = False
        node.make_safe()
        end_quietly()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    if node.refusal:
        refuse(f"{node.get_name()}: {node.refusal}")
    if node.failure:
        sys.exit(1)
