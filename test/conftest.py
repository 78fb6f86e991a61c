"""What every test has: a DDS domain of its own and a short run directory for simulators."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from robot_charger.common import host_only

settings.register_profile(  # the machine may be busy, and every test has the domain's fixture
    "robot_charger", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("robot_charger")

host_only.stay()
CALLERS_DOMAIN = os.environ.get("ROS_DOMAIN_ID")
os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported, by whichever test


class Lanes(LoadScopeScheduling):
    """Two workers for the tests that keep real time: one for whole stations and banks of modules, one for the rest.

    By a test's folder: the marks of --dist loadgroup are lost with pytest 9.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "stations" if nodeid.split("/")[-2] in ("desk", "operator", "power") else "nodes"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Lanes | None:
    return Lanes(config, log) if config.getvalue("dist") == "loadscope" else None


@contextlib.contextmanager
def domain_of_its_own() -> Iterator[int]:
    """A free DDS domain in this process's environment, unless the caller set ROS_DOMAIN_ID."""
    if CALLERS_DOMAIN:
        yield int(CALLERS_DOMAIN)
        return
    from robot_charger.common.domain import free_domain

    before = os.environ.get("ROS_DOMAIN_ID")
    with free_domain() as domain:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        try:
            yield domain
        finally:
            os.environ.pop("ROS_DOMAIN_ID", None)
            if before is not None:
                os.environ["ROS_DOMAIN_ID"] = before


@pytest.fixture(autouse=True)
def ros_domain() -> Iterator[int]:
    """Every test its own: what another one's node still says is not heard."""
    with domain_of_its_own() as domain:
        yield domain


@pytest.fixture(scope="module")
def module_domain() -> Iterator[int]:
    """A domain for processes that outlive one test of a module."""
    with domain_of_its_own() as domain:
        yield domain


@pytest.fixture
def sim_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory (Unix sockets allow 107 characters) named by ROBOT_CHARGER_SIM."""
    directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    monkeypatch.setenv("ROBOT_CHARGER_SIM", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
