# In:  the tables, which wait for all runs, and what the jobs of these left in benchmarks/ and usage/.
# Out: the account of what ran: a row per attempt at a job, a page with requested against used time,
# memory and GPU-hours, and a picture of when what ran.
USAGE = multiext(f"{ROOT}/plan/", "usage.parquet", "usage.html", "timeline.png")


rule usage:
    input:
        TABLES[0],
    output:
        USAGE,
    log:
        f"{ROOT}/logs/usage.log",
    localrule: True
    params:
        config=lambda w, output: CATALOG.config.model_dump_json(),  # reruns nothing
        folder=subpath(output[0], parent=True),
    shell:
        """
        emm usage \
            --config {params.config:q} \
            --output {params.folder:q} \
            >{log:q} 2>&1
        """
