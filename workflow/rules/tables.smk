# In:  the summaries of all evaluations. Out: memorization.parquet, a row per checkpoint, and
# emm.parquet, a row per series and threshold.


rule tables:
    input:
        expand("{evaluation}/summary.parquet", evaluation=EVALUATIONS),
    output:
        memorization=TABLES[0],
        emm=TABLES[1],
    log:
        f"{ROOT}/logs/tables.log",
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=CONFIG,
    shell:
        """
        emm tables \
            --config {params.config:q} \
            --memorization {output.memorization:q} \
            --emm {output.emm:q} \
            2>{log:q}
        """
