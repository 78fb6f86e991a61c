"""The station's vocabulary: the enumerations and messages of msg/, srv/ and action/ as plain, checked values.

``values``   generated: one IntEnum per set of constants, one frozen dataclass per message, with units and ranges.
``generate`` writes it: ``python -m robot_charger.words.generate [--check]``.
``border``   the one rule by which a message from outside becomes a value: ranges, enumerations, stamps, dangers.
``convert``  between values and ROS messages. Only node.py files and the node base class use it.
``standard`` the same check for standard messages (joint states, wrenches, poses, trajectories, pictures).
"""
