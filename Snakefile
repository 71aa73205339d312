# The whole study: `snakemake` remakes results/<study>/ from the pinned sources. The rules are under workflow/rules.
import pathlib

# where the environments and images are
HOUSE = workflow.current_basedir
# A job on a cluster plans with the tree as it was when the study was started, whatever has been edited or checked out
# since; see "Freeze" in workflow/Snakefile. Each Snakemake module has its own tree, since each has its own study.
FROZEN_KEY = "_".join(filter(None, ("frozen_tree", workflow.modifier.namespace)))
FROZEN = workflow.config_settings.overwrite_config.get(FROZEN_KEY)
EARLIER_TARGET = workflow.default_target


include:
    str(pathlib.Path.cwd() / FROZEN / "workflow/Snakefile")
    if FROZEN
    else "workflow/Snakefile"


# an include alone would leave the first included rule as the target, or none
as_module.set_default_target(workflow, EARLIER_TARGET)
