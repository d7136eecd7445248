# In:  the memorization table of all that is selected. Out: advice.md: where the EMM lies by these
# results, and what moves it, and a picture of the latter.
ADVICE = [
    f"{ROOT}/advice.md",
    *multiext(f"{ROOT}/figures/advice", ".svg", ".pdf", ".png", ".csv"),
]


rule advice:
    input:
        memorization=TABLES[0],
    output:
        page=ADVICE[0],
        svg=report(
            ADVICE[1],
            caption="../report/advice.rst",
            category="Advice",
            labels={"figure": "advice", "shows": "What moves the EMM"},
        ),
        others=ADVICE[2:],
    log:
        f"{ROOT}/logs/advice.log",
    localrule: True
    params:
        config=CONFIG,
        scale=CATALOG.scale.model_dump_json(include={"run_sd"}),
        picture=subpath(output.svg, strip_suffix=".svg"),
    shell:
        """
        emm advice \
            --config {params.config:q} \
            --memorization {input.memorization:q} \
            --output {output.page:q} \
            --picture {params.picture:q} \
            2>{log:q}
        """
