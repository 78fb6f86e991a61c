"""What was heard, read as inputs of the flow."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Session

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
    heard.message("backend", SimpleNamespace(stamp_ns=1, store_ok=store_ok, transactions=transactions))
    assert heard.inputs(Session(session_id=session), 2).store_ok == billable
