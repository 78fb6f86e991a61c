"""The lean executor does what rclpy's does: every kind of entity, coroutines, errors, changes while it spins."""

import threading

import pytest
import rclpy
from rclpy.action import ActionClient, ActionServer
from rclpy.executors import ExternalShutdownException
from std_msgs.msg import Int32
from std_srvs.srv import SetBool

from robot_charger.action import Charge
from robot_charger.common.executor import LeanExecutor

pytestmark = pytest.mark.integration


@pytest.fixture()
def desk():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("under_test", context=context)
    executor = LeanExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def spin_until(executor, condition, turns=200):
    for _ in range(turns):
        if condition():
            return
        executor.spin_once(timeout_sec=0.1)
    raise AssertionError("what was waited for did not come")


def test_messages_reach_plain_and_coroutine_callbacks(desk):
    node, executor = desk
    plain, with_info, awaited = [], [], []

    async def coroutine(message):
        awaited.append(message.data)

    node.create_subscription(Int32, "numbers", lambda m: plain.append(m.data), 10)
    node.create_subscription(Int32, "numbers", lambda m, info: with_info.append(info["source_timestamp"]), 10)
    node.create_subscription(Int32, "numbers", coroutine, 10)
    publisher = node.create_publisher(Int32, "numbers", 10)
    spin_until(executor, lambda: publisher.get_subscription_count() == 3)
    for number in range(5):
        publisher.publish(Int32(data=number))
    spin_until(executor, lambda: len(plain) == len(with_info) == len(awaited) == 5)
    assert plain == awaited == [0, 1, 2, 3, 4]
    assert with_info == sorted(with_info)


def test_a_cancelled_timer_is_silent_and_another_made_in_a_callback_runs(desk):
    node, executor = desk
    ticks, later = [], []

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            timer.cancel()
            node.create_timer(0.005, lambda: later.append(1))

    timer = node.create_timer(0.005, tick)
    spin_until(executor, lambda: len(later) >= 5)
    assert len(ticks) == 3


def test_a_service_answers_its_client_and_one_that_awaits_holds_its_group(desk):
    node, executor = desk
    release = rclpy.task.Future(executor=executor)
    during = []

    async def slow(request, response):
        await release
        response.success = request.data
        return response

    node.create_service(SetBool, "slow", slow)
    client = node.create_client(SetBool, "slow", callback_group=rclpy.callback_groups.ReentrantCallbackGroup())
    ticking = node.create_timer(0.005, lambda: during.append(1))
    spin_until(executor, client.service_is_ready)
    answer = client.call_async(SetBool.Request(data=True))
    spin_until(executor, lambda: any(task.executing() or not task.done() for task, *_ in executor._tasks))
    ticking.reset()
    during.clear()
    for _ in range(5):
        executor.spin_once(timeout_sec=0.01)
    assert not during, "a timer of the same exclusive group ran beside the service"
    release.set_result(None)
    spin_until(executor, answer.done)
    assert answer.result().success
    spin_until(executor, lambda: during)


def test_an_action_runs_to_its_result(desk):
    node, executor = desk

    async def execute(handle):
        handle.succeed()
        return Charge.Result()

    server = ActionServer(node, Charge, "charge", execute)
    client = ActionClient(node, Charge, "charge")
    spin_until(executor, client.server_is_ready)
    accepted = client.send_goal_async(Charge.Goal())
    spin_until(executor, accepted.done)
    result = accepted.result().get_result_async()
    spin_until(executor, result.done)
    assert result.result().status == 4  # STATUS_SUCCEEDED
    client.destroy()
    server.destroy()


def test_an_error_of_a_callback_surfaces_and_the_rest_goes_on(desk):
    node, executor = desk
    after = []
    broken = node.create_timer(0.005, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        spin_until(executor, lambda: False)
    broken.cancel()
    node.create_timer(0.005, lambda: after.append(1))
    spin_until(executor, lambda: after)


def test_entities_come_and_go_while_another_thread_spins(desk):
    node, executor = desk
    heard = []
    spinner = threading.Thread(target=executor.spin)
    spinner.start()
    for number in range(20):
        subscription = node.create_subscription(Int32, f"topic{number}", heard.append, 1)
        publisher = node.create_publisher(Int32, f"topic{number}", 1)
        node.destroy_subscription(subscription)
        node.destroy_publisher(publisher)
    last = threading.Event()
    node.create_timer(0.005, last.set)
    assert last.wait(10.0)
    executor.shutdown()
    spinner.join(5.0)
    assert not spinner.is_alive()
    assert not heard


def test_the_end_of_the_context_is_told(desk):
    _node, executor = desk
    rclpy.shutdown(context=executor.context)
    with pytest.raises(ExternalShutdownException):
        executor.spin_once(timeout_sec=1.0)


def test_a_future_is_waited_for_and_no_longer(desk):
    node, executor = desk
    future = rclpy.task.Future(executor=executor)
    node.create_timer(0.01, lambda: future.set_result(7))
    executor.spin_until_future_complete(future, timeout_sec=10.0)
    assert future.result() == 7
    never = rclpy.task.Future(executor=executor)
    executor.spin_until_future_complete(never, timeout_sec=0.05)
    assert not never.done()
