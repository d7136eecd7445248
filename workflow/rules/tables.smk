# In:  the summaries of all evaluations. Out: memorization.parquet, a row per checkpoint, and
# emm.parquet, a row per series and threshold. Each experiment also has the two tables of its own,
# so that a figure waits for the runs of its experiment only.


rule tables:
    input:
        SUMMARIES,
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


use rule tables as experiment_tables with:
    input:
        summaries,
    output:
        memorization=f"{ROOT}/tables/{{experiment}}/memorization.parquet",
        emm=f"{ROOT}/tables/{{experiment}}/emm.parquet",
    log:
        f"{ROOT}/logs/tables/{{experiment}}.log",
    params:
        config=lambda w: what(CATALOG.only(w.experiment)),
