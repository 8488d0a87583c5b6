"""Softmax regression: the convex problem, solved to a proof.

The objective is evaluated over blocks of rows (``rows``, ``objective``), preconditioned
(``precondition``), minimised in one loop (``solve``) that ends with a certificate
(``certificate``), and dressed as scikit-learn estimators (``regression``, ``path``).
"""
