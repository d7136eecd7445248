"""What a plan costs before it runs: operations, speeds, jobs and their resources; and after."""
