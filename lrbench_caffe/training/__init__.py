"""One training: schedule, loop, measurements, files, and resuming."""
