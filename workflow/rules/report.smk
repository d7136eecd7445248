# In:  all figures and tables. Out: the replication table as a page, what was found as captions of
# the figures, and report.zip, which opens in a browser without a network.
REPORT = f"{ROOT}/report.zip"
PAGE = f"{ROOT}/tables/replication.html"


report: "../report/workflow.rst"


rule pages:
    input:
        replication=TABLES[2],
        figures=expand("{root}/figures/{name}.csv", root=ROOT, name=CATALOG.figures),
    output:
        page=report(
            PAGE,
            caption="../report/replication.rst",
            category="Replication",
            labels={"page": "replication", "shows": "Published values and claims"},
        ),
        summary=f"{ROOT}/tables/replication.rst",
        captions=expand("{root}/figures/{name}.rst", root=ROOT, name=CATALOG.figures),
    log:
        f"{ROOT}/logs/pages.log",
    localrule: True
    params:
        config=CONFIG,
        scale=CATALOG.scale.title,
    shell:
        """
        emm pages {input.figures:q} \
            --config {params.config:q} \
            --replication {input.replication:q} \
            --output {output.page:q} \
            2>{log:q}
        """


rule report:
    input:
        tables=TABLES,
        figures=FIGURES + ADVICE,
        page=PAGE,
    output:
        REPORT,
    log:
        f"{ROOT}/logs/report.log",
    localrule: True
    params:
        config=CONFIG,
        snakefile=relpath(workflow.main_snakefile),
        style=relpath(Path(workflow.basedir) / "workflow/report/report.css"),
    shell:
        """
        echo {params.config:q} >{output:q}.json
        snakemake {input.tables:q} {input.figures:q} {input.page:q} \
            --snakefile {params.snakefile:q} \
            --nolock \
            --configfile {output:q}.json \
            --replace-workflow-config \
            --report {output:q} \
            --report-stylesheet {params.style:q} \
            >{log:q} 2>&1
        rm {output:q}.json
        """
