"""Optional abilities of a module: drawing its own weights, counting its FLOPs and its idle parameters, following a
vocabulary that grows.

A module that has one inherits the class below; initialisation and the counts test for the class with `isinstance`. The
methods are abstract, so a misspelt one is an error when the module is built.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch


class DrawsOwnWeights(ABC):
    """A module whose own parameters begin otherwise than initial_weights.py has it."""

    @abstractmethod
    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Set the parameters in place, without gradient; called last.

        Args:
            draw: gives the random generator of the parameter of that name.
        """


class CountsFlops(ABC):
    """A module that computes more than the products with its weight matrices."""

    @abstractmethod
    def num_flops(self, length: float) -> float:
        """Return the FLOPs besides its weights' of one token's forward pass, in a block of `length` tokens."""


class HasIdleParameters(ABC):
    """A module of whose parameters a token uses only some."""

    @abstractmethod
    def num_idle_parameters(self) -> int:
        """Return how many of its parameters a token leaves idle, the mean over tokens."""


class HasIdleMatrices(HasIdleParameters):
    """A module that sends a token through some of its weight matrices only, such as a layer of experts."""

    @abstractmethod
    def num_idle_matrix_elements(self) -> int:
        """Return how many of its idle parameters are elements of matrices."""


class HasTokenTable(ABC):
    """A module that holds something for every token id, besides the embeddings and the output layer."""

    @abstractmethod
    def resize_vocabulary(self, vocabulary: int) -> None:
        """Hold `vocabulary` token ids from now on: entries of ids that stay are unchanged, others go or are added."""
