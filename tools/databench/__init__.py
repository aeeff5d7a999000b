"""What the benchmarks of the LR database share."""
