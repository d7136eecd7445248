# In:  a run's record and checkpoints, and its subset. Out: a folder with the samples of all its
# checkpoints, removed once they are scored.


rule sample:
    input:
        # A longer training writes the record again, and the checkpoints sampled here stay the same.
        record=ancient(f"{RUN}/run.yaml"),
        subset=lambda w: f"{ROOT}/subsets/{RUNS[w.run].subset_id}.npz",
        given=written_anew,
    output:
        temp(directory(f"{EVALUATION}/samples")),
    log:
        f"{ROOT}/logs/sample/{{run}}/{{evaluation}}.log",
    benchmark:
        f"{ROOT}/benchmarks/sample/{{run}}/{{evaluation}}.jsonl"
    priority: 30
    threads: THREADS
    resources:
        gpu=lambda w: job("sample", w).gpus,
        mem_mb=lambda w: job("sample", w).mem_mb,
        runtime=lambda w: job("sample", w).minutes,
    params:
        settings=lambda w: options(
            ids.evaluation_settings(EVALUATIONS[w.run, w.evaluation].settings)
        ),
        version=f"recipe={RECIPE_VERSION}",
        attempts=lambda w, output: f"{ROOT}/usage/sample/{w.run}/{w.evaluation}.jsonl",  # reruns nothing
    shell:
        """
        emm sample \
            {params.settings:q} \
            --name {wildcards.evaluation:q} \
            --run {input.record:q} \
            --subset {input.subset:q} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            --output {output:q} \
            2>{log:q}
        """
