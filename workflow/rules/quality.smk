# In:  the samples of a run's checkpoints, its training set, and its source, whose other images are
# held out. Out: the features that images are compared by, once for each source and resolution, and a
# table of the quality of samples, named by the features, beside the scores of the evaluation.


rule features:
    input:
        lambda w: f"{ROOT}/sources/{FEATURES[w.features].source_id}.npz",
    output:
        f"{ROOT}/features/{{features}}.safetensors",
    log:
        f"{ROOT}/logs/features/{{features}}.log",
    benchmark:
        f"{ROOT}/benchmarks/features/{{features}}.jsonl"
    wildcard_constraints:
        features="[^/]+",
    priority: 20
    threads: THREADS
    resources:
        gpu=lambda w: features_job(w).gpus,
        mem_mb=lambda w: features_job(w).mem_mb,
        runtime=lambda w: features_job(w).minutes,
    params:
        resolution=lambda w: [
            f"--resolution={side}"
            for side in [FEATURES[w.features].settings["data.resolution"]]
            if side
        ],
        version=f"recipe={RECIPE_VERSION}",
        device=lambda w, output: FEATURES[w.features].settings["train.device"],  # reruns nothing
        attempts=lambda w, output: f"{ROOT}/usage/features/{w.features}.jsonl",  # reruns nothing
    shell:
        """
        emm features \
            --source {input:q} \
            {params.resolution:q} \
            --device {params.device} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            --output {output:q} \
            2>{log:q}
        """


rule quality:
    input:
        samples=f"{EVALUATION}/samples",
        subset=lambda w: f"{ROOT}/subsets/{RUNS[w.run].subset_id}.npz",
        source=lambda w: f"{ROOT}/sources/{RUNS[w.run].source_id}.npz",
        weights=features_of,
    output:
        f"{EVALUATION}/{ids.measure_name('quality', CATALOG.config)}.parquet",
    log:
        f"{ROOT}/logs/quality/{{run}}/{{evaluation}}.log",
    benchmark:
        f"{ROOT}/benchmarks/quality/{{run}}/{{evaluation}}.jsonl"
    priority: 40
    threads: THREADS
    resources:
        gpu=lambda w: job("quality", w).gpus,
        mem_mb=lambda w: job("quality", w).mem_mb,
        runtime=lambda w: job("quality", w).minutes,
    params:
        features=CATALOG.config.features,
        weights=lambda w, input: [f"--weights={path}" for path in input.weights],
        device=lambda w, output: RUNS[w.run].settings["train.device"],  # reruns nothing
        attempts=lambda w, output: f"{ROOT}/usage/quality/{w.run}/{w.evaluation}.jsonl",  # reruns nothing
    shell:
        """
        emm quality \
            --samples {input.samples:q} \
            --training {input.subset:q} \
            --reference {input.source:q} \
            --features {params.features} \
            {params.weights:q} \
            --device {params.device} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            --output {output:q} \
            2>{log:q}
        """
