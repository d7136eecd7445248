# In:  a source, and one of dummies where there are any. Out: {subset}.npz, the training set of a run: images at the run's resolution, and
# the labels that its network is told.


rule subset:
    input:
        source=lambda w: f"{ROOT}/sources/{SUBSETS[w.subset].source_id}.npz",
        dummies=dummies,
    output:
        f"{ROOT}/subsets/{{subset}}.npz",
    log:
        f"{ROOT}/logs/subset/{{subset}}.log",
    priority: 10
    resources:
        mem_mb=SMALL["subset"].mem_mb,
        runtime=SMALL["subset"].minutes,
    params:
        settings=lambda w: options(ids.subset_settings(SUBSETS[w.subset].settings)),
        dummies=lambda w, input: [f"--dummies={path}" for path in input.dummies],
    shell:
        """
        emm subset {input.source:q} \
            {params.settings:q} \
            {params.dummies:q} \
            --output {output:q} \
            2>{log:q}
        """
