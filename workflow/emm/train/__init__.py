"""Training as published: schedules, EMA, checkpoints, resume and the loop."""

METRICS = ("step", "epoch", "loss", "lr", "seconds", "images_per_second")  # metrics.parquet
