"""A run on disk, and bringing one into the LR database."""
