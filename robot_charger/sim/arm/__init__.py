"""What a desk lacks of the robot: arm, tool, plugs and vehicles' inlets in MuJoCo."""
