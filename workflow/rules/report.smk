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
    localrule: True
    params:
        config=CONFIG,
        figures=list(CATALOG.figures),
    shell:
        """
        echo {params.config:q} >{output:q}.json
        snakemake {params.figures:q} \
            --nolock \
            --configfile {output:q}.json \
            --report {output:q} \
            >{log:q} 2>&1
        rm {output:q}.json
        """
