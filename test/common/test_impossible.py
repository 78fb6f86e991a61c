"""Options of the demo that do not go together: status 2 and one line that names them, before anything starts."""

from __future__ import annotations

import itertools

import pytest
from click.testing import CliRunner, Result

from robot_charger import cli
from robot_charger.common import process
from robot_charger.desk import demo

STARTED = 77


@pytest.fixture(autouse=True)
def no_station(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "require_logs", lambda: None)
    monkeypatch.setattr(demo, "run", lambda options: STARTED)


def demo_with(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["demo", *arguments])


def test_every_protocol_with_and_without_tls_and_contract() -> None:
    """-20 and ACDP have TLS anyway: --tls changes nothing there."""
    works = {("iso15118-2", True, True)} | {(protocol, False, False) for protocol in cli.PROTOCOLS}
    works |= {(p, True, False) for p in cli.PROTOCOLS if p.startswith(("iso15118", "acdp"))}
    for protocol, tls, pnc in itertools.product(cli.PROTOCOLS, (False, True), (False, True)):
        done = demo_with("--protocol", protocol, *["--tls"] * tls, *["--pnc"] * pnc)
        expected = STARTED if (protocol, tls, pnc) in works else 2
        assert done.exit_code == expected, (protocol, tls, pnc, done.output)
        assert done.exit_code == STARTED or len(done.output.splitlines()) == 1, done.output


@pytest.mark.parametrize("ocpp", cli.OCPP_VERSIONS)
@pytest.mark.parametrize("evses", ["1", "3"])
def test_every_ocpp_version_with_everything(ocpp: str, evses: str) -> None:
    for protocol, fault in itertools.product(cli.PROTOCOLS, cli.FAULTS):
        arguments = ["--ocpp", ocpp, "--evses", evses, "--protocol", protocol, "--fault", fault]
        other_kind = fault in (cli.DC_FAULTS if protocol == "ac" else cli.AC_FAULTS)
        assert demo_with(*arguments).exit_code == (2 if other_kind else STARTED), arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "chademo", "--interface", "lo"], ["--interface", "chademo", "no V2G link"]),
        (["--interface", "nosuch0"], ["--interface", "nosuch0"]),
        (["--interface", "lo", "--evses", "2"], ["--interface", "--evses 2"]),
        (["--protocol", "iso15118-20-bpt", "--target-soc", "80"], ["--target-soc", "iso15118-20-bpt"]),
        (["--protocol", "acdp-bpt", "--target-soc", "80"], ["--target-soc", "acdp-bpt"]),
        (["--modules", "2", "--evses", "3"], ["--modules 2", "--evses 3"]),
        (["--module-protocol", "modbus", "--modules", "248"], ["--modules 248", "modbus", "247"]),
        (["--engine", "gazebo", "--evses", "3"], ["--engine gazebo", "one bay", "--evses 3"]),
        (["--engine", "gazebo", "--fault", "robot-jam"], ["--fault robot-jam", "--engine gazebo"]),
        (["--fault", "module-dead", "--modules", "1"], ["--fault module-dead", "--modules 1"]),
    ],
)
def test_one_line_says_what_does_not_go_together(arguments: list[str], words: list[str]) -> None:
    done = demo_with(*arguments)
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    for word in words:
        assert word in line, line


def test_an_interface_that_is_there() -> None:
    assert demo_with("--interface", "lo").exit_code == STARTED
