"""Training as published: schedules, EMA, checkpoints, resume and the loop."""
