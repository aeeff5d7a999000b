"""What recorded runs say: rankings, similar tasks, recommendations; pure functions."""
