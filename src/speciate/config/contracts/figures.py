"""Contract of the figures: which page shows a figure, for which studies, and which tables it reads."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from speciate.config.components import ComponentOptions, component_module, options_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class FigureModule(Protocol):
    """A figure: `figures/<name>.py`."""

    QUESTION: str
    """The question that the figure answers."""
    LIMITS: str
    """One sentence on what the figure does not show."""
    TABLES: Mapping[str, tuple[str, ...]]
    """Table -> the columns that the figure reads of it."""

    def finding(self, tables: "Mapping[str, pd.DataFrame]", subject: Any, options: Any) -> str:
        """Return what the figure shows in one sentence with its numbers; it is the figure's title on the page.

        The empty text where the study has nothing that the figure could show: then no page shows the figure.
        """

    def figure(self, tables: "Mapping[str, pd.DataFrame]", subject: Any, options: Any) -> "Figure":
        """Draw it."""

    def caption(self, tables: "Mapping[str, pd.DataFrame]", subject: Any, options: Any) -> str:
        """Return how to read it."""


class FigureOptions(ComponentOptions):
    """Options of a figure."""

    page: ClassVar[str] = "report"
    """The page that shows it: the study's `report`, or its `data` page."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Components, such as `mixer.gsa`, of which the study must use at least one; none: it is drawn for every study."""
    reads: ClassVar[str] = "tables"
    """Whose tables it reads: the study's `tables`, its `sweeps`, `interventions` or `types` of code tokens if any, its
    `tasks`, the data `card`, or the `cost` of mixers."""

    def component(self) -> FigureModule:
        return cast(FigureModule, component_module(self))


def figure_options(name: str) -> type[FigureOptions]:
    """Return the options of the figure `name`. Raises ValueError where there is no such figure."""
    return cast(type[FigureOptions], options_of("figures", name))
