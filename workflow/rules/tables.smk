# In:  the summaries of all evaluations. Out: memorization.parquet, a row per checkpoint, and
# emm.parquet, a row per series and threshold. Each experiment also has the two tables of its own,
# so that a figure waits for the runs of its experiment only. The replication table sets the published
# values, and the claims of the selected experiments, beside the results.
#
# Tables also follow the records of runs: sampling does not (ancient), and where nothing else follows
# a training that has to go on, Snakemake looks at nothing behind it.


rule tables:
    input:
        **results_of(None),
    output:
        memorization=TABLES[0],
        emm=TABLES[1],
    log:
        f"{ROOT}/logs/tables.log",
    resources:
        mem_mb=SMALL["tables"].mem_mb,
        runtime=SMALL["tables"].minutes,
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
        unpack(lambda w: results_of(w.experiment)),
    output:
        memorization=f"{ROOT}/tables/{{experiment}}/memorization.parquet",
        emm=f"{ROOT}/tables/{{experiment}}/emm.parquet",
    log:
        f"{ROOT}/logs/tables/{{experiment}}.log",
    params:
        config=lambda w: what(CATALOG.only(w.experiment)),


rule replication:
    input:
        memorization=TABLES[0],
        published=PUBLISHED,
    output:
        table=TABLES[2],
        others=multiext(f"{ROOT}/tables/replication", ".csv", ".md"),
    log:
        f"{ROOT}/logs/replication.log",
    resources:
        mem_mb=SMALL["replication"].mem_mb,
        runtime=SMALL["replication"].minutes,
    params:
        config=CONFIG,
        scale=CATALOG.scale.model_dump_json(include={"comparable", "run_sd"}),
        claims=[
            f"{name}: {claim.model_dump_json(exclude_defaults=True)}"
            for experiment in CATALOG.experiments.values()
            for name, claim in experiment.claims.items()
        ],
    shell:
        """
        emm replicate \
            --config {params.config:q} \
            --memorization {input.memorization:q} \
            --output {output.table:q} \
            2>{log:q}
        """
