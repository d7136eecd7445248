# In:  all figures and tables. Out: report.zip, which opens in a browser without a network.
REPORT = f"{ROOT}/report.zip"


report: "../report/workflow.rst"


rule report:
    input:
        TABLES,
        FIGURES,
    output:
        REPORT,
    log:
        f"{ROOT}/logs/report.log",
    params:
        config=[f"{key}={json.dumps(value)}" for key, value in json.loads(CONFIG).items()],
        figures=list(CATALOG.figures),
    localrule: True
    shell:
        """
        snakemake {params.figures:q} \
            --nolock \
            --config {params.config:q} \
            --report {output:q} \
            > {log:q} 2>&1
        """
