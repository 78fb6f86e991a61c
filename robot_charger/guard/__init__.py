"""Reference logic of the safety controller: what its firmware does, cycle by cycle.

``frames`` are its messages on the bus, ``logic`` is its step; docs/safety-controller.md has the requirements (SC-1 to
SC-25) and test/guard/vectors.json what a firmware can be run against. It imports nothing of the subsystems. All values
are integers of fixed width and all memory is reserved before the first step, so that it can be transcribed to C. It is
a reference for a certified implementation, not one.
"""
