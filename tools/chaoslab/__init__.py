"""The parts of tools/chaos: trials that disturb a command on purpose, and compare."""
