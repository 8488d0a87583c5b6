"""Softmax regression over the part of a block store: larger than memory, or elsewhere.

The rows are dealt into lanes, pure functions sum up a lane's rows, an engine calls them, and the
driver adds the lanes' sums in their order. Only a sample of the rows is ever in the driver's
memory.
"""
