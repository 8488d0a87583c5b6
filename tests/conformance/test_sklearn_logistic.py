"""scikit-learn's own tests of LogisticRegression, with SoftmaxRegression in its place.

The source of ``sklearn/linear_model/tests/test_logistic.py`` is executed as it ships in the wheel,
with three names swapped: ``LogisticRegression`` is ours, ``SOLVERS`` are ours, the seed is fixed.
Arguments that say how scikit-learn's solvers draw or share work (``random_state``, ``n_jobs``,
``l1_ratio=0``, which is L2) are dropped; ``newton-cholesky`` runs as our ``newton-cg``, the others
as "auto".
scikit-learn's ``tol`` bounds the gradient and ours the gap, which goes with its square, so it is
squared. What is deselected is written below, with the reason.
"""

import importlib.util
import inspect
import re
import types
from pathlib import Path

import pytest

from luce import SoftmaxRegression

SPEC = importlib.util.find_spec("sklearn.linear_model.tests.test_logistic")

# Some of these tests also fit scikit-learn's LogisticRegressionCV, whose defaults are changing.
pytestmark = pytest.mark.filterwarnings("ignore:The default value.*:FutureWarning")

# pattern of names → why these tests are not about us
OTHER = {
    r"cv|CV|score|scoring|path": (
        "LogisticRegressionCV and the private path functions: ours has another interface"
    ),
    r"liblinear|saga|intercept_scaling|newton_cholesky_fallback": "solvers we do not have",
    r"sparsify|helpful|non_elasticnet|l1_l2_equivalence|incompatible": (
        "a format of coef_, and scikit-learn's words for penalties and their errors"
    ),
    r"deprecated|warns_with|c_inf": "deprecations and warnings of scikit-learn's own",
    r"callback": "scikit-learn's callbacks, which we do not take",
    r"array_api": "array API dispatch: we take PyTorch tensors without it",
    r"check_solver_option|passing_params": "the wording of scikit-learn's option errors",
    r"test_n_iter|test_max_iter": "scikit-learn's warnings, and the solvers' own counts",
    r"test_logreg_predict_proba_multinomial": "a private method, _predict_proba_lr",
    r"test_multinomial_logistic_regression_string_inputs": (
        "a class of weight 0, which scikit-learn fits and we ask to drop"
    ),
    r"test_warm_start_converge_LR": "compares with the solver sag",
    r"test_penalty_none": "scikit-learn's warning that C is not used without a penalty",
    r"test_zero_max_iter": (
        "max_iter=0 ends its Newton at W = b = 0, and ours at the class frequencies' intercepts"
    ),
}


def swapped(**options):
    """Return ours for scikit-learn's arguments."""
    for name in ("random_state", "n_jobs"):
        options.pop(name, None)
    if options.get("l1_ratio", 0) == 0:
        options.pop("l1_ratio", None)
    if options.get("solver") in ("saga", "liblinear"):
        options["solver"] = "auto"
    if options.get("solver") == "newton-cholesky":
        options["solver"] = "newton-cg"
    if "tol" in options:
        options["tol"] = max(options["tol"] ** 2, 1e-14)
    return SoftmaxRegression(**options)


def swapped_module():
    """Execute scikit-learn's test module and return it with the names swapped."""
    source = Path(SPEC.origin).read_text(encoding="utf-8")
    source = re.sub(
        r"^SOLVERS = .*$", 'SOLVERS = ("lbfgs", "newton-cg")', source, flags=re.MULTILINE
    )
    # A mark that this project does not register; it says nothing to us.
    source = re.sub(r"^@pytest\.mark\.thread_unsafe.*$", "", source, flags=re.MULTILINE)
    module = types.ModuleType("swapped_test_logistic")
    exec(compile(source, SPEC.origin, "exec"), module.__dict__)
    module.LogisticRegression = swapped
    return module


@pytest.fixture
def global_random_seed():
    """Return the seed: scikit-learn's own default."""
    return 42


def test_reasons_are_all_needed():
    """Every pattern of deselected tests still matches some: none outlives its use."""
    for pattern in OTHER:
        assert any(re.search(pattern, name) for name in NAMES), pattern


NAMES = []
if SPEC is not None:
    MODULE = swapped_module()
    NAMES = [n for n, v in vars(MODULE).items() if n.startswith("test_") and inspect.isfunction(v)]
    globals().update(
        {n: getattr(MODULE, n) for n in NAMES if not any(re.search(p, n) for p in OTHER)}
    )
