"""What a kind of model is to the rest of Luce: the one class that every kind is a subclass of.

Nobody else asks which kind it is. Nothing heavy is imported here: each kind loads what it computes
with when it first makes an estimator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luce.data.blocks import Part
    from luce.evaluation.calibration import Elsewhere
    from luce.models.steps import Step
    from luce.neural.teaching import Lessons
    from luce.neural.training import Progress
    from luce.options import Option

__all__ = ["Checkpoint", "Estimator", "Layer", "Model", "Weights", "anywhere"]


class Estimator(Protocol):
    """What is asked of an estimator: what scikit-learn's classifiers have."""

    classes_: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return its parameters by name."""

    def fit(self, X: Any, y: Any) -> Any:
        """Learn from rows and labels."""

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities, (rows, classes)."""

    def predict_log_proba(self, X: Any) -> Any:
        """Return their logarithms, exact where the probabilities underflow."""


E = TypeVar("E", bound=Estimator)


class Checkpoint(NamedTuple):
    """Where a training stands: its tensors and a note of plain data go on from there.

    `history` has a record for each epoch until now; `last` says that nothing is left to train.
    """

    tensors: Mapping[str, Any]
    note: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    last: bool


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer: its name, what it is in a line, the shape that it gives, and what it costs.

    A multiplication and an addition count as two FLOPs; only matrix products and convolutions are
    counted (as `torch.utils.flop_counter` does).
    """

    name: str
    layer: str
    output: Sequence[int]
    parameters: int
    flops: int


class Weights(NamedTuple):
    """Weights that a person can look at, the first axis over what they are of.

    Those of classes are (classes, features) and centred over the classes: softmax does not change
    when the same is added to every class's, so only differences between classes say anything.
    """

    of: Literal["classes", "units", "filters"]
    array: NDArray[np.floating[Any]]


def anywhere(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's options for where it is loaded: trained on a GPU, it is used without one."""
    return {name: "auto" if name == "device" else value for name, value in options.items()}


class Model(ABC, Generic[E]):
    """A kind of model: how its estimators are made, fitted, described, saved and restored.

    An object holds nothing of a training: all methods take the estimator. Rows come encoded, as
    the schema gives them, (rows, ...). Of a scikit-learn classifier that is fitted at once, `make`,
    `tensors`, `restore` and `layers` are all there is to write.

    Attributes
    ----------
    options : mapping of str to Option
        What can be set, by name. The option "seed" is given the training's, "verbose" whether
        a person looks on.
    defaults : mapping of str to value
        What differs from the estimator's own defaults.
    takes_images : bool
        Whether images come as (rows, channels, height, width); else as rows of numbers.
    takes_sparse : bool
        Whether rows may be sparse, as those of tables with texts or hundreds of categories are:
        SciPy's ``csr_array``. Other models are not trained on such tables.
    takes_parts : bool
        Whether training rows may be a part of a block store (`luce.data.blocks.Part`), which has
        their labels: then `fit` is given None for these.
    takes_labels : bool
        Whether it learns several labels at once, an indicator (rows, labels) in the place of
        classes: its estimator has ``decision_function`` and ``multilabel_``.
    suits_text : bool
        Whether "auto" is to try it where rows are texts and nothing else.
    space : mapping of str to list or dict
        What a search of its options tries where nobody says it, as a file for `luce tune` has it.
    in_steps : bool
        Whether `fit` gives control back after every batch, with checkpoints to go on from.
    together : bool
        Whether all processes of a group call `fit`, and share each batch (`luce.group`).
    taught : bool
        Whether `fit` can learn from what a teacher said of the rows.
    taught_with : mapping of str to value
        Which of `luce.options.DISTIL` have another default where it is taught.
    """

    options: Mapping[str, Option] = {}
    defaults: Mapping[str, Any] = {}
    space: Mapping[str, Any] = {}
    takes_images: bool = False
    takes_sparse: bool = False
    takes_parts: bool = False
    takes_labels: bool = False
    suits_text: bool = True
    in_steps: bool = False
    together: bool = False
    taught: bool = False
    taught_with: Mapping[str, Any] = {}

    def preset(
        self,
        options: Mapping[str, Any],  # noqa: ARG002
        input_shape: Sequence[int],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return what else differs from the defaults where rows are of this shape.

        Of options that were asked for nothing is changed; what others are best may follow from
        them.
        """
        return {}

    def as_student(self, input_shape: Sequence[int]) -> dict[str, Any]:  # noqa: ARG002
        """Return what differs from the defaults where a teacher is to teach a small model."""
        return {}

    def suits(self, input_shape: Sequence[int]) -> bool:  # noqa: ARG002
        """Say whether "auto" is to try it on rows of this shape."""
        return True

    def check_together(self, options: Mapping[str, Any]) -> None:
        """Raise ArgumentError for options that are allowed one by one but not together."""

    def check_taught(self, options: Mapping[str, Any], temperature: float) -> None:
        """Raise ArgumentError for what it cannot be taught with; only asked if it is `taught`."""

    @abstractmethod
    def make(self, options: Mapping[str, Any]) -> E:
        """Return an unfitted estimator with these options; what is left out is its default."""

    def check_rows(self, estimator: E, input_shape: Sequence[int], n_classes: int) -> None:
        """Raise ArgumentError if it cannot be trained on such rows. This costs next to nothing.

        It is asked of all candidates before the first is trained, which may take hours.
        """

    def fit(
        self,
        estimator: E,
        rows: NDArray[Any],
        labels: NDArray[Any],
        *,
        validation: tuple[NDArray[Any], NDArray[Any]] | None = None,  # noqa: ARG002
        resume: tuple[Mapping[str, Any], dict[str, Any]] | None = None,  # noqa: ARG002
        lessons: Lessons | None = None,  # noqa: ARG002
    ) -> Iterator[Progress]:
        """Train the estimator; whoever iterates may save a checkpoint or stop after any step.

        There are no steps where it is fitted at once.

        Parameters
        ----------
        estimator : estimator
            As `make` returned it; fitted once the iterator is exhausted.
        rows, labels : ndarray
            What to learn from.
        validation : pair of ndarray, optional
            Rows and labels to judge epochs by.
        resume : pair, optional
            Tensors and note of a checkpoint.
        lessons : Lessons, optional
            What a teacher said of the rows; only a model that is `taught` is given any.
        """
        estimator.fit(self._shaped(rows), labels)
        return iter(())

    def checkpoint(self, estimator: E) -> Checkpoint:
        """Return where the training of an estimator stands, while `fit` is iterated."""
        raise NotImplementedError

    def log_probabilities(self, estimator: E, rows: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Return the log-probabilities of encoded rows, exact where probabilities underflow."""
        found: NDArray[np.floating[Any]] = estimator.predict_log_proba(self._shaped(rows))
        return found

    def label_logits(self, estimator: E, rows: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Return the logits of several labels at once, (rows, labels); only if `takes_labels`."""
        learnt: Any = estimator
        found: NDArray[np.floating[Any]] = learnt.decision_function(self._shaped(rows))
        return found

    def losses(self, estimator: E, part: Part) -> Elsewhere | None:  # noqa: ARG002
        """Return the log-loss of all rows of a store's part at any temperature.

        None where a pass over them is not cheap: then a temperature is of a sample of the rows.
        """
        return None

    def probabilities(self, estimator: E, rows: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Return the probabilities of encoded rows, (rows, classes)."""
        found: NDArray[np.floating[Any]] = estimator.predict_proba(self._shaped(rows))
        return found

    def history(self, estimator: E) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return a record for each epoch or iteration, with ``epoch`` and ``seconds``, if any."""
        return []

    def outcome(self, estimator: E) -> dict[str, Any]:  # noqa: ARG002
        """Return how the training ended, as plain data."""
        return {}

    def remark(self, estimator: E) -> str | None:  # noqa: ARG002
        """Return how the training ended in a line for people, where its steps did not say it."""
        return None

    def resolved(self, estimator: E) -> dict[str, Any]:
        """Return the value of each option of the estimator; `make` makes the same from them."""
        parameters = estimator.get_params(deep=False)
        return {name: value for name, value in parameters.items() if name in self.options}

    @abstractmethod
    def tensors(self, estimator: E) -> dict[str, NDArray[Any]]:
        """Return the weights of a fitted estimator, by name."""

    @abstractmethod
    def restore(
        self,
        estimator: E,
        classes: Sequence[Any],
        input_shape: Sequence[int],
        tensors: Mapping[str, NDArray[Any]],
    ) -> E:
        """Return the unfitted estimator as the fitted one that `tensors` was taken from.

        Raises
        ------
        ArgumentError, LookupError, TypeError, ValueError or RuntimeError
            If the tensors do not fit its options, the classes and the shape of a row.
        """

    def recall(self, estimator: E, outcome: Mapping[str, Any]) -> None:
        """Tell a restored estimator what `outcome` said of its fit, where it can be asked of it."""

    @abstractmethod
    def layers(self, estimator: E, input_shape: Sequence[int]) -> list[Layer]:
        """Return the layers of a fitted estimator."""

    def parameters(self, estimator: E) -> int:
        """Return how many numbers are learnt; networks know it while they are trained."""
        return sum(tensor.size for tensor in self.tensors(estimator).values())

    def describe(self, estimator: E, input_shape: Sequence[int]) -> dict[str, Any]:
        """Return layers (with shapes), parameters, bytes and FLOPs per example, as plain data."""
        layers = self.layers(estimator, input_shape)
        return {
            "layers": [asdict(layer) for layer in layers],
            "parameters": self.parameters(estimator),
            "bytes": sum(tensor.nbytes for tensor in self.tensors(estimator).values()),
            "flops_per_example": sum(layer.flops for layer in layers),
            "input_shape": list(input_shape),
            "classes": len(estimator.classes_),
        }

    def steps(self, estimator: E) -> list[Step] | None:  # noqa: ARG002
        """Return what a fitted estimator computes of encoded rows, up to logits, for an export.

        None if it does not say: then it cannot be exported.
        """
        return None

    def explain(self, estimator: E) -> Weights | None:  # noqa: ARG002
        """Return weights of a fitted estimator that a person can look at, if it has any."""
        return None

    def influence(
        self,
        estimator: E,  # noqa: ARG002
        rows: NDArray[Any],  # noqa: ARG002
        codes: NDArray[Any],  # noqa: ARG002
        asked: NDArray[Any],  # noqa: ARG002
        asked_codes: NDArray[Any],  # noqa: ARG002
        outcome: Mapping[str, Any],  # noqa: ARG002
    ) -> NDArray[np.floating[Any]] | None:
        """Return by how much the loss of rows changes without each row of the fit, if it is known.

        Shape (asked, rows). None where it is not known, or would take long. ``outcome`` is what
        `outcome` returned when the estimator was fitted.
        """
        return None

    def _shaped(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows if self.takes_images or rows.ndim == 2 else rows.reshape(len(rows), -1)
