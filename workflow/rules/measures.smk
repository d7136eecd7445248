# In:  what an experiment's `measures` ask for: a run's checkpoints, its training set, and its source,
# whose other images are held out; measures of samples have rule files of their own. Out: a table
# beside the scores of the evaluation, and one of all evaluations of an experiment for figures of
# single levels of noise.


rule ideals:
    input:
        # As for sampling: the checkpoints stay the same when a longer training writes it again.
        record=ancient(f"{RUN}/run.yaml"),
        subset=lambda w: f"{ROOT}/subsets/{RUNS[w.run].subset_id}.npz",
        source=lambda w: f"{ROOT}/sources/{RUNS[w.run].source_id}.npz",
        given=written_anew,
    output:
        f"{EVALUATION}/ideals.parquet",
    log:
        f"{ROOT}/logs/ideals/{{run}}/{{evaluation}}.log",
    benchmark:
        f"{ROOT}/benchmarks/ideals/{{run}}/{{evaluation}}.jsonl"
    priority: 30
    threads: THREADS
    resources:
        gpu=lambda w: job("ideals", w).gpus,
        mem_mb=lambda w: job("ideals", w).mem_mb,
        runtime=lambda w: job("ideals", w).minutes,
    params:
        settings=lambda w: options(
            ids.evaluation_settings(EVALUATIONS[w.run, w.evaluation].settings)
        ),
        version=f"recipe={RECIPE_VERSION}",
        attempts=lambda w, output: f"{ROOT}/usage/ideals/{w.run}/{w.evaluation}.jsonl",  # reruns nothing
    shell:
        """
        emm ideals \
            {params.settings:q} \
            --name {wildcards.evaluation:q} \
            --run {input.record:q} \
            --subset {input.subset:q} \
            --source {input.source:q} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            --output {output:q} \
            2>{log:q}
        """


rule measure_table:
    input:
        lambda w: measured(w.measure, w.experiment),
    output:
        f"{ROOT}/tables/{{experiment}}/{{measure}}.parquet",
    log:
        f"{ROOT}/logs/tables/{{experiment}}-{{measure}}.log",
    wildcard_constraints:
        measure="|".join(MEASURES),
    resources:
        mem_mb=SMALL["measure_table"].mem_mb,
        runtime=SMALL["measure_table"].minutes,
    params:
        config=lambda w: what(CATALOG.only(w.experiment)),
    shell:
        """
        emm gather {wildcards.measure:q} \
            --config {params.config:q} \
            --output {output:q} \
            2>{log:q}
        """
