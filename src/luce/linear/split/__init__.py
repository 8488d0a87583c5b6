"""Softmax regression whose classes are split over the ranks of a process group.

Each rank has all rows, and the coefficients of some of the classes. Of a row, ranks tell each other
the largest logit and three sums; of a step, inner products. Everything else is a rank's own.
"""
