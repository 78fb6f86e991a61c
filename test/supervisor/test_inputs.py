"""What was heard, read as inputs of the flow."""

from __future__ import annotations

import pytest

from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Session
from robot_charger.words.values import BackendState, ChargingLimit, SupplyLimits, VehicleLink

ID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    "store_ok, transactions, session, billable",
    [
        (True, ["", ""], ID, True),
        (False, ["", ID], ID, True),  # its start is on the disk
        (False, ["", "another"], ID, False),
        (False, ["", ""], ID, False),
        (False, ["", ""], "", False),
    ],
)
def test_a_broken_store_forbids_what_could_not_be_billed(store_ok, transactions, session, billable):
    heard = Heard()
    assert heard.inputs(Session(), 1).store_ok  # a station without a back end
    heard.hear(BackendState(1, store_ok=store_ok, transactions=tuple(transactions)))
    assert heard.inputs(Session(session_id=session), 2).store_ok == billable


@pytest.mark.parametrize(
    "supply_a, available, limit_w, left",
    [(150.0, True, None, True), (150.0, True, 50_000.0, True), (150.0, True, 0.0, False), (0.0, True, None, False),
     (150.0, False, None, False)],
)  # fmt: skip
def test_power_is_left_where_supply_and_back_end_have_some(supply_a, available, limit_w, left):
    heard = Heard()
    assert not heard.inputs(Session(), 1).power_left
    heard.hear(SupplyLimits(1, available=available, max_current_a=supply_a, max_power_w=supply_a * 400))
    if limit_w is not None:
        heard.hear(ChargingLimit(1, max_current_a=float("inf"), max_power_w=limit_w))
    assert heard.inputs(Session(), 2).power_left == left


@pytest.mark.parametrize(
    "identity, contract, session, autocharge, token",
    [
        ("02EC000000E1", False, ID, True, ("02EC000000E1", "MacAddress")),
        ("02EC000000E1", False, ID, False, ("", "")),
        ("02EC000000E1", False, "another", True, ("", "")),
        ("", False, ID, True, ("", "")),
        ("DEEKXC00000001", True, ID, False, ("DEEKXC00000001", "eMAID")),
        ("DEEKXC00000001", True, ID, True, ("DEEKXC00000001", "eMAID")),
    ],
)
def test_the_token_that_a_vehicle_shows(identity, contract, session, autocharge, token):
    """Autocharge takes the vehicle's address, and only where it is switched on; a contract counts anyway."""
    heard = Heard()
    assert heard.vehicle_token(ID, autocharge) == ("", "")
    heard.hear(VehicleLink(1, identity=identity, contract=contract, session_id=session))
    assert heard.vehicle_token(ID, autocharge) == token
    assert heard.vehicle_token("", autocharge) == ("", "")
