# In:  a source. Out: {subset}.npz, the training set of a run: images at the run's resolution, and
# the labels that its network is told.


rule subset:
    input:
        lambda w: f"{ROOT}/sources/{CATALOG.subsets[w.subset].source_id}.npz",
    output:
        f"{ROOT}/subsets/{{subset}}.npz",
    log:
        f"{ROOT}/logs/subset/{{subset}}.log",
    priority: 10
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=lambda w: options(
            ids.subset_settings(CATALOG.subsets[w.subset].settings)
        ),
    shell:
        """
        emm subset {input:q} \
            {params.settings:q} \
            --output {output:q} \
            2>{log:q}
        """
