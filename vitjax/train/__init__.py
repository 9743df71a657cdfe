"""Training system: one jitted, sharded step and one loop for every task."""
