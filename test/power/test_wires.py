"""The desk's wires: by a thread of their own, or in the cycle of whoever holds the end."""

from __future__ import annotations

from pathlib import Path

from robot_charger.common.wires import WireEnd


def test_an_end_without_a_thread_hears_when_it_asks(tmp_path: Path) -> None:
    heard: list[str] = []
    quiet = WireEnd("rack", tmp_path, on_signals=lambda sender, signals: heard.append(sender), threaded=False)
    loud = WireEnd("vehicle1", tmp_path, threaded=False)
    try:
        assert quiet.age_s("vehicle1") == float("inf")
        assert loud.send("rack", {"emf_v": 360.0})
        assert loud.send("rack", {"emf_v": 361.0})
        assert quiet.signals("vehicle1") == {} and not heard
        quiet.poll()
        assert quiet.signals("vehicle1") == {"emf_v": 361.0} and heard == ["vehicle1", "vehicle1"]
        assert quiet.age_s("vehicle1") < 5.0
        assert not loud.send("nobody", {})
    finally:
        loud.close()
        quiet.close()
    assert not (tmp_path / "rack.wire").exists()
