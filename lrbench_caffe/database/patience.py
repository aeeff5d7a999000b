"""How long a database that is away is tried, in seconds."""

LONG = 30.0  # a PostgreSQL server restarts in fewer
AT_TERMINAL = 10.0  # somebody is waiting
BESIDE_TRAINING = 2.0  # a training must not wait; what is missing is written later
