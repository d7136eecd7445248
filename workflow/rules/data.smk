# In:  an archive, a folder, a package's data or a generator. Out: {source}.npz, the whole source
# in the one internal form: images (N, H, W, C) uint8, classes.


rule data:
    input:
        folders,
    output:
        f"{ROOT}/sources/{{source}}.npz",
    log:
        f"{ROOT}/logs/data/{{source}}.log",
    priority: 20
    threads: THREADS
    resources:
        mem_mb=SMALL["data"].mem_mb,
        runtime=SMALL["data"].minutes,
    params:
        settings=lambda w: options(ids.source_settings(SOURCES[w.source])),
        cache=lambda w, output: CATALOG.config.cache,  # reruns nothing
    shell:
        """
        emm data \
            {params.settings:q} \
            --cache {params.cache:q} \
            --threads {threads} \
            --output {output:q} \
            2>{log:q}
        """
