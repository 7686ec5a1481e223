"""Training: the loop, the step, the run's folder."""
