"""How long to retry when a database cannot be reached, in seconds."""

LONG = 30.0  # a PostgreSQL server restarts in fewer
AT_TERMINAL = 10.0  # a person is waiting
BESIDE_TRAINING = 2.0  # a training must not wait; missing results are written later
