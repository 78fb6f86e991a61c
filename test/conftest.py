"""What every test shares: a DDS domain of its own and a short run directory for simulators."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported, by whichever test


@pytest.fixture(scope="session", autouse=True)
def ros_domain() -> Iterator[int]:
    """A free DDS domain for this test run, unless ROS_DOMAIN_ID is set."""
    if "ROS_DOMAIN_ID" in os.environ:
        yield int(os.environ["ROS_DOMAIN_ID"])
        return
    from robot_charger.common.domain import free_domain

    with free_domain() as domain:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        yield domain
        del os.environ["ROS_DOMAIN_ID"]


@pytest.fixture
def sim_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory (Unix sockets allow 107 characters) named by ROBOT_CHARGER_SIM."""
    directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    monkeypatch.setenv("ROBOT_CHARGER_SIM", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
