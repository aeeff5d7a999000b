"""The replay benchmark of the tuner: recorded learning curves, and optimisers that spend iterations."""
