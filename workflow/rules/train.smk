# In:  a subset, and the weights or the code of a network that is not trained here. Out: run.yaml,
# the record of the training, written last, and its metrics.
#
# Checkpoints and the state that a killed training resumes from stand beside them. They are not
# declared: Snakemake removes declared outputs before each attempt. Nor is the log of attempts in
# usage/, which training, sampling and scoring each append to.


rule train:
    input:
        subset=lambda w: f"{ROOT}/subsets/{RUNS[w.run].subset_id}.npz",
        given=lambda w: RUNS[w.run].given,
    output:
        record=f"{RUN}/run.yaml",
        metrics=f"{RUN}/metrics.parquet",
    log:
        f"{ROOT}/logs/train/{{run}}.log",
    benchmark:
        f"{ROOT}/benchmarks/train/{{run}}.jsonl"
    threads: lambda w: job("train", w).threads
    resources:
        gpu=lambda w: job("train", w).gpus,
        mem_mb=lambda w: job("train", w).mem_mb,
        runtime=lambda w: job("train", w).minutes,
    params:
        settings=lambda w: options(ids.identity(RUNS[w.run].settings)),
        ema=lambda w: [f"--ema={rate}" for rate in RUNS[w.run].ema],
        record=lambda w: [f"--record={text}" for text in RUNS[w.run].recordings],
        version=f"recipe={RECIPE_VERSION}",
        device=lambda w, output: RUNS[w.run].settings["train.device"],  # reruns nothing
        attempts=lambda w, output: f"{ROOT}/usage/train/{w.run}.jsonl",  # reruns nothing
    shell:
        """
        emm train \
            {params.settings:q} \
            {params.ema:q} \
            {params.record:q} \
            --set train.device={params.device:q} \
            --subset {input.subset:q} \
            --attempts {params.attempts:q} \
            --threads {threads} \
            --processes {resources.gpu} \
            --output {output.record:q} \
            2>{log:q}
        """
