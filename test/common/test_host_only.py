"""A station's processes keep to this computer, and a process that is started again is heard whatever the clock did."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from robot_charger.common import host_only

CHILD = """
import glob, os, rclpy
rclpy.init()
node = rclpy.create_node("listener")
mine = {os.readlink(f) for f in glob.glob("/proc/self/fd/*") if os.path.islink(f)}
inodes = {m[8:-1] for m in mine if m.startswith("socket:[")}
for kind in ("udp", "udp6"):
    for line in open(f"/proc/net/{kind}").read().splitlines()[1:]:
        if line.split()[9] in inodes:
            print("socket", line.split()[1].split(":")[0])
for comm in glob.glob("/proc/self/task/*/comm"):
    print("thread", open(comm).read().strip())
"""


@pytest.mark.integration
def test_nothing_listens_on_an_address_that_others_reach() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in (host_only.RANGE, host_only.PROFILES)}
    host_only.stay(environment)
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    words = [line.split() for line in done.stdout.splitlines()]
    sockets = {value for what, value in words if what == "socket"}
    loopback, multicast = "0100007F", "0100FFEF"  # 127.0.0.1, and 239.255.0.1 joined on it
    assert loopback in sockets and sockets <= {loopback, multicast}
    assert not [value for what, value in words if what == "thread" and "shm" in value]


def test_what_is_asked_for_is_respected() -> None:
    ours = host_only.variables({})
    assert ours[host_only.RANGE] == "SUBNET" and host_only.is_host_only(ours)
    assert host_only.variables({host_only.RANGE: "LOCALHOST"}) == ours
    assert host_only.variables({host_only.RANGE: "SUBNET"}) == {}
    assert host_only.variables({host_only.PROFILES: "/mine.xml"}) == {}
    assert host_only.variables({host_only.RMW: "rmw_cyclonedds_cpp"}) == {host_only.RANGE: "LOCALHOST"}
    assert host_only.variables({**ours}) == {}


def test_an_open_range_is_told() -> None:
    assert not host_only.is_host_only({})
    for other in ("/mine.xml", "/tmp/fastdds.xml"):
        assert not host_only.is_host_only({host_only.RANGE: "SUBNET", host_only.PROFILES: other})
    assert host_only.is_host_only({host_only.RANGE: "LOCALHOST"})
