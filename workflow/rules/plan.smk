# In:  the config. Out: what everything costs before it runs: a table of all jobs, what they come to,
# and a page with their graph. Speeds are those of plan.gpu in the config.
rule plan:
    output:
        multiext(f"{ROOT}/plan/", "jobs.csv", "plan.json", "plan.html"),
    log:
        f"{ROOT}/logs/plan.log",
    localrule: True
    params:
        config=CATALOG.config.model_dump_json(),
        folder=subpath(output[0], parent=True),
    shell:
        """
        emm plan \
            --config {params.config:q} \
            --output {params.folder:q} \
            >{log:q} 2>&1
        """
