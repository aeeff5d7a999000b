"""The paper's tables and figures: the trainings, the comparison with ours, the conclusions."""
