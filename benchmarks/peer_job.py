"""What ``python -m benchmarks jobs`` runs beside ours: the same job in pandas and scikit-learn."""

from __future__ import annotations

import json
import sys

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

# Of more characters on average a column is of texts.
TEXT = 20


def train(table: str, out: str) -> None:
    """Fit on four fifths of the rows, score the others, print that as JSON, and save."""
    frame = pd.read_csv(table)
    X, y = frame.drop(columns="y"), frame["y"]
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.2, stratify=y, random_state=0
    )
    numbers = list(X.select_dtypes("number").columns)
    words = [name for name in X.columns if name not in numbers]
    texts = [name for name in words if X[name].str.len().mean() > TEXT]
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    hot = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    encoder = ColumnTransformer(
        [("numbers", scaled, numbers), ("words", hot, [n for n in words if n not in texts])]
        + [(name, TfidfVectorizer(ngram_range=(1, 2)), name) for name in texts]
    )
    pipeline = make_pipeline(encoder, LogisticRegression(max_iter=1000))
    pipeline.fit(X_train, y_train)
    probabilities = pipeline.predict_proba(X_test)
    predicted = pipeline.classes_[probabilities.argmax(axis=1)]
    scores = {
        "log_loss": log_loss(y_test, probabilities),
        "accuracy": accuracy_score(y_test, predicted),
    }
    joblib.dump(pipeline, out)
    print(json.dumps(scores))


def predict(table: str, model: str, out: str) -> None:
    """Write the predicted class and the probabilities of all rows as CSV."""
    pipeline = joblib.load(model)
    X = pd.read_csv(table).drop(columns="y")
    probabilities = pipeline.predict_proba(X)
    columns = [f"probability_{label}" for label in pipeline.classes_]
    found = pd.DataFrame(probabilities, columns=columns)
    found.insert(0, "prediction", pipeline.classes_[probabilities.argmax(axis=1)])
    found.to_csv(out, index=False)


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](*sys.argv[2:])
