# In:  the samples of a run's checkpoints with its training set, and for criteria of copying its source,
# whose other images are held out; for twins the samples and the training set of the run on the other
# half of the data. Out: a table beside the scores of the evaluation.


rule criteria:
    input:
        samples=f"{EVALUATION}/samples",
        subset=lambda w: f"{ROOT}/subsets/{RUNS[w.run].subset_id}.npz",
        source=lambda w: f"{ROOT}/sources/{RUNS[w.run].source_id}.npz",
    output:
        f"{EVALUATION}/criteria.parquet",
    log:
        f"{ROOT}/logs/criteria/{{run}}/{{evaluation}}.log",
    benchmark:
        f"{ROOT}/benchmarks/criteria/{{run}}/{{evaluation}}.jsonl"
    priority: 40
    threads: THREADS
    resources:
        gpu=lambda w: job("criteria", w).gpus,
        mem_mb=lambda w: job("criteria", w).mem_mb,
        runtime=lambda w: job("criteria", w).minutes,
    params:
        device=lambda w, output: RUNS[w.run].settings["train.device"],  # reruns nothing
        attempts=lambda w, output: f"{ROOT}/usage/criteria/{w.run}/{w.evaluation}.jsonl",  # reruns nothing
    shell:
        """
        emm criteria \
            --samples {input.samples:q} \
            --training {input.subset:q} \
            --source {input.source:q} \
            --output {output:q} \
            --device {params.device} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            2>{log:q}
        """


rule twins:
    input:
        samples=f"{EVALUATION}/samples",
        subset=lambda w: f"{ROOT}/subsets/{RUNS[w.run].subset_id}.npz",
        twin=lambda w: f"{twin(w)}/samples",
        other=lambda w: f"{ROOT}/subsets/{RUNS[CATALOG.twin(w.run, w.evaluation)[0]].subset_id}.npz",
    output:
        f"{EVALUATION}/twins.parquet",
    log:
        f"{ROOT}/logs/twins/{{run}}/{{evaluation}}.log",
    benchmark:
        f"{ROOT}/benchmarks/twins/{{run}}/{{evaluation}}.jsonl"
    priority: 40
    threads: THREADS
    resources:
        gpu=lambda w: job("twins", w).gpus,
        mem_mb=lambda w: job("twins", w).mem_mb,
        runtime=lambda w: job("twins", w).minutes,
    params:
        device=lambda w, output: RUNS[w.run].settings["train.device"],  # reruns nothing
        attempts=lambda w, output: f"{ROOT}/usage/twins/{w.run}/{w.evaluation}.jsonl",  # reruns nothing
    shell:
        """
        emm twins \
            --samples {input.samples:q} \
            --subset {input.subset:q} \
            --twin {input.twin:q} \
            --twin-subset {input.other:q} \
            --device {params.device} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            --output {output:q} \
            2>{log:q}
        """
