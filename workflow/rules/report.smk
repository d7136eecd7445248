# In:  all figures and tables. Out: report.zip, which opens in a browser without a network.
REPORT = f"{ROOT}/report.zip"


report: "../report/workflow.rst"


rule report:
    input:
        tables=TABLES,
        figures=FIGURES,
    output:
        REPORT,
    log:
        f"{ROOT}/logs/report.log",
    localrule: True
    params:
        config=CONFIG,
        snakefile=relpath(workflow.main_snakefile),
    shell:
        """
        echo {params.config:q} >{output:q}.json
        snakemake {input.tables:q} {input.figures:q} \
            --snakefile {params.snakefile:q} \
            --nolock \
            --configfile {output:q}.json \
            --replace-workflow-config \
            --report {output:q} \
            >{log:q} 2>&1
        rm {output:q}.json
        """
