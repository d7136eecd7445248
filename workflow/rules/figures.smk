# In:  the tables of its experiment, and for an image grid the pictures of the runs, or their training
# sets. Out: each figure as svg, pdf and png, with the csv that it was drawn from. Every figure is a
# target by its name, and so are all panels of one together (fig2 is fig2a, fig2b and fig2c).
FORMATS = ["svg", "pdf", "png", "csv"]
FIGURES = expand(
    "{root}/figures/{name}.{suffix}", root=ROOT, name=CATALOG.figures, suffix=FORMATS
)
TARGETS = {name: [name] for name in CATALOG.figures} | panels(CATALOG.figures)


rule figure:
    input:
        unpack(experiment_tables),
        pictures=pictures,
    output:
        svg=report(
            f"{ROOT}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category=lambda w: paper_and_section(w)[0],
            subcategory=lambda w: paper_and_section(w)[1],
            labels=lambda w: CATALOG.figures[w.figure].labels,
        ),
        others=multiext(f"{ROOT}/figures/{{figure}}", ".pdf", ".png", ".csv"),
    log:
        f"{ROOT}/logs/figure/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(CATALOG.figures),
    resources:
        mem_mb=SMALL["figure"].mem_mb,
        runtime=SMALL["figure"].minutes,
    params:
        config=lambda w: what(CATALOG.only(CATALOG.figures[w.figure].experiment)),
        stem=f"{ROOT}/figures/{{figure}}",
        figure=lambda w: CATALOG.figures[w.figure].figure.model_dump_json(
            exclude_defaults=True
        ),
        caption=lambda w: CATALOG.figures[w.figure].caption,
        measures=lambda w, input: [
            f"--measure={input[name]}" for name in CATALOG.figures[w.figure].tables
        ],
    shell:
        """
        emm figure {wildcards.figure:q} \
            --config {params.config:q} \
            --memorization {input.memorization:q} \
            --emm {input.emm:q} \
            {params.measures:q} \
            --output {params.stem:q} \
            2>{log:q}
        """


for _name, _parts in TARGETS.items():

    rule:
        name:
            _name
        input:
            expand(
                "{root}/figures/{name}.{suffix}",
                root=ROOT,
                name=_parts,
                suffix=FORMATS,
            ),


OTHERS = {name: [name] for name in CATALOG.other_figures} | panels(
    CATALOG.other_figures
)
for _name, _parts in OTHERS.items():
    if _name in TARGETS:
        continue

    rule:
        name:
            _name
        input:
            not_selected(_parts[0]),
