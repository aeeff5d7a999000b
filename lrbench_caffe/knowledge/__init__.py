"""Conclusions from recorded runs: rankings, similar tasks, recommendations; pure functions."""
