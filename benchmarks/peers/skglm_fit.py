"""skglm's binary L1, for ``python -m benchmarks sparse --skglm PYTHON``: it needs skglm, not Luce.

``python skglm_fit.py FOLDER ALPHA TOL`` reads X.npy or X.npz (columns) and y.npy, fits once to
compile and once timed, and writes coef.npy and intercept.npy.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse
from skglm import SparseLogisticRegression

folder, alpha, tol = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
dense = (folder / "X.npy").exists()
X = np.load(folder / "X.npy") if dense else scipy.sparse.load_npz(folder / "X.npz")
if dense:
    X = np.asfortranarray(X)
y = np.load(folder / "y.npy")
SparseLogisticRegression(alpha=alpha, tol=1e-1).fit(X[:1000], y[:1000])
model = SparseLogisticRegression(alpha=alpha, tol=tol, max_iter=100, max_epochs=100_000)
start = time.process_time()
model.fit(X, y)
seconds = time.process_time() - start
np.save(folder / "coef.npy", np.reshape(model.coef_, (1, -1)))
np.save(folder / "intercept.npy", np.ravel(model.intercept_))
print(json.dumps({"seconds": seconds}))
