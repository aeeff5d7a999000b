"""The tuner: finds a good LR policy for a task at a fraction of what training all candidates costs."""
