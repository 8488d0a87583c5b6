"""MLflow's and BentoML's servers of one scikit-learn model, for ``python -m benchmarks serve``.

``python served_peers.py mlflow PORT`` and ``... bentoml PORT`` fit a logistic regression on the
digits and serve it, as each one's documentation has it, with one worker. It needs what it names,
not Luce.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path.cwd()


def model():
    """Return a logistic regression that is fitted on the digits."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    X, y = load_digits(return_X_y=True)
    return LogisticRegression(max_iter=1_000).fit(X, y)


def mlflow(port):
    """Serve it with MLflow."""
    import mlflow.sklearn

    folder = HERE / "mlflow-model"
    if not folder.exists():
        mlflow.sklearn.save_model(model(), folder, pyfunc_predict_fn="predict_proba")
    command = ["models", "serve", "-m", str(folder), "--env-manager", "local", "-p", port]
    # It looks for uvicorn on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    subprocess.run(
        [sys.executable, "-m", "mlflow", *command, "-w", "1"], check=True, env=environment
    )


SERVICE = """
import bentoml, joblib, numpy as np

@bentoml.service(workers=1)
class Digits:
    def __init__(self):
        self.model = joblib.load("bento-model.joblib")

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)
"""


def bentoml(port):
    """Serve it with BentoML, which batches."""
    import joblib

    joblib.dump(model(), HERE / "bento-model.joblib")
    (HERE / "bento_service.py").write_text(SERVICE)
    command = ["serve", "bento_service:Digits", "--port", port]
    subprocess.run([sys.executable, "-m", "bentoml", *command], check=True, cwd=HERE)


if __name__ == "__main__":
    {"mlflow": mlflow, "bentoml": bentoml}[sys.argv[1]](sys.argv[2])
