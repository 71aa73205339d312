# The whole study: `snakemake` remakes results/<study>/ from the pinned sources. The rules are under workflow/rules.
import pathlib

# where the environments and images are
HOUSE = pathlib.Path(workflow.current_basedir)
# A job on a cluster plans with the tree as it was when the study was started, whatever has been edited or checked out
# since; see "Freeze" in workflow/Snakefile.
FROZEN = config.pop("frozen_tree", None)


include:
    str(pathlib.Path.cwd() / FROZEN / "workflow/Snakefile")
    if FROZEN
    else "workflow/Snakefile"


# an include alone would leave the first included rule as the target, or none
workflow.default_target = "all"
