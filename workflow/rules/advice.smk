# In:  the memorization table of all that is selected. Out: advice.md: where the EMM lies by these
# results, and what moves it. Not among what is made by default: snakemake advice.
rule advice:
    input:
        memorization=TABLES[0],
    output:
        f"{ROOT}/advice.md",
    log:
        f"{ROOT}/logs/advice.log",
    localrule: True
    params:
        config=CONFIG,
        scale=CATALOG.scale.model_dump_json(include={"run_sd"}),
    shell:
        """
        emm advice \
            --config {params.config:q} \
            --memorization {input.memorization:q} \
            --output {output:q} \
            2>{log:q}
        """
