"""State, optimizer, step, loop, checkpoints, telemetry."""
