"""Starts two ranks that train a run, by Spark or by Ray, as docs/several-workers.md shows it."""

import sys
from pathlib import Path

launcher, out = sys.argv[1], str(Path(sys.argv[2]).absolute())


def work():
    """Train, as each rank does."""
    import luce

    luce.train("digits", model="mlp", hidden=(16,), epochs=4, name=launcher, out=out)


if launcher == "spark":
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    TorchDistributor(num_processes=2, local_mode=False, use_gpu=False).run(work)
    session.stop()
else:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(num_cpus=2, include_dashboard=False)
    scaling = ScalingConfig(num_workers=2)
    kept = RunConfig(storage_path=out, name="of-ray")
    TorchTrainer(work, scaling_config=scaling, run_config=kept).fit()
    ray.shutdown()
