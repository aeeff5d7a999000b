"""The paper's tables and figures: what to train for them, how ours compare, what the paper concludes."""
