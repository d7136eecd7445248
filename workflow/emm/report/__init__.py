"""Pages of the report: the replication table, its summary, and the captions of figures."""
