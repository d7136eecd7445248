# In:  the samples of a run's checkpoints and its subset. Out: the exact two neighbours of every
# sample, a summary row per checkpoint, and pictures of the best one.


rule score:
    input:
        samples=f"{EVALUATION}/samples",
        subset=lambda w: f"{ROOT}/subsets/{RUNS[w.run].subset_id}.npz",
    output:
        scores=f"{EVALUATION}/scores.parquet",
        summary=f"{EVALUATION}/summary.parquet",
        gallery=f"{EVALUATION}/gallery.npz",
    log:
        f"{ROOT}/logs/score/{{run}}/{{evaluation}}.log",
    benchmark:
        f"{ROOT}/benchmarks/score/{{run}}/{{evaluation}}.jsonl"
    priority: 40
    threads: THREADS
    resources:
        gpu=lambda w: job("score", w).gpus,
        mem_mb=lambda w: job("score", w).mem_mb,
        runtime=lambda w: job("score", w).minutes,
    params:
        gallery=CATALOG.config.gallery,
        device=lambda w, output: RUNS[w.run].settings["train.device"],  # reruns nothing
        attempts=lambda w, output: f"{ROOT}/usage/score/{w.run}/{w.evaluation}.jsonl",  # reruns nothing
    shell:
        """
        emm score \
            --samples {input.samples:q} \
            --training {input.subset:q} \
            --output {output.scores:q} \
            --summary {output.summary:q} \
            --gallery {output.gallery:q} \
            --gallery-size {params.gallery} \
            --device {params.device} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            2>{log:q}
        """
