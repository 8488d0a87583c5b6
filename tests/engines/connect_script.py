"""Fits over Spark Connect, whose sessions cannot be in a process that has another."""

import sys
from pathlib import Path

from pyspark.sql import SparkSession

from luce import SoftmaxRegression
from luce.data.blocks import BlockStore
from luce.engines.spark import adopt
from tests.engines import faults

folder, fault, marker = sys.argv[1:]
session = SparkSession.builder.remote("local[2]").getOrCreate()
engine = adopt(session, 120.0 if fault == "none" else 10.0)
if fault != "none":
    engine = faults.Faulty(engine, getattr(faults, fault), marker)
model = SoftmaxRegression().fit(BlockStore.open(folder).part("train"), engine=engine)
Path(marker).with_suffix(".fit").write_bytes(model.coef_.tobytes())
session.stop()
