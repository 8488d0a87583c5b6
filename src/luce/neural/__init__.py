"""Networks: what they are, how they train, and the scikit-learn estimator over them."""
