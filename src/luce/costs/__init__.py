"""What a fit of softmax regression will cost: bytes, passes, traffic, memory and time.

``model`` is the arithmetic, ``speeds`` what this machine can do, ``sources`` what a first slice of
the data says.
"""
