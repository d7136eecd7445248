# Effective model memorization: data -> subset -> train -> sample -> score -> tables -> figures.
#
#   snakemake --profile slurm            every figure and table, on a cluster
#   snakemake --profile profiles/local   the same graph at the quick scale, on this machine
#
# What runs is said in config.yaml; a figure or table is also a target by its own name.
from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


container: "envs/emm.sif"  # built from envs/emm.def; used with --sdm apptainer only


include: "workflow/rules/common.smk"
include: "workflow/rules/lookups.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/subset.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/measures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/advice.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/usage.smk"


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        ADVICE,
        REPORT,
        USAGE,
