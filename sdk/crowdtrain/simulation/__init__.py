"""How long a plan takes, what it moves and what it costs, on a fleet that does not have to be there.

``workload`` says what is to be done, ``outline`` does so for plans that are too large to be built, ``fleet`` who does
it and how they are connected, ``estimate`` what each machine can do, ``run`` is the simulation, ``forecast`` what comes
out, ``comparison`` sets it beside what really happened, ``advice`` compares strategies.
"""

from crowdtrain.simulation.advice import Advice, Option, recommend
from crowdtrain.simulation.comparison import Comparison, Observed, compare, observe
from crowdtrain.simulation.fleet import Fleet, Machine, Market, Network
from crowdtrain.simulation.forecast import Forecast, simulate
from crowdtrain.simulation.outline import RECIPES, Model, Recipe, outline
from crowdtrain.simulation.run import Attempt
from crowdtrain.simulation.workload import Task, Workload

__all__ = [
    "RECIPES",
    "Advice",
    "Attempt",
    "Comparison",
    "Fleet",
    "Forecast",
    "Machine",
    "Market",
    "Model",
    "Network",
    "Observed",
    "Option",
    "Recipe",
    "Task",
    "Workload",
    "compare",
    "observe",
    "outline",
    "recommend",
    "simulate",
]
