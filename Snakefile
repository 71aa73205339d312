# The whole study: `snakemake` remakes results/<study>/ from the pinned sources. The rules are under workflow/rules.
include: "workflow/Snakefile"


# an include alone would leave the first included rule as the target, or none
workflow.default_target = "all"
