"""Snakemake that asks SLURM every other second, where its plugin spares real ones."""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda _: 2, lambda _, value: None)

if __name__ == "__main__":
    sys.argv[0] = "snakemake"
    main()
