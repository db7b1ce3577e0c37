"""MLflow: a run in the user's tracking server, or in a database in the run folder."""

from __future__ import annotations

import logging
import os
import time
from typing import ClassVar

from evonas.files import make_folder
from evonas.loggers import Described, Mark, Record
from evonas.yamlfile import flat

FOLDER = "mlruns"
MOST_PARAMS, LONGEST = 100, 500  # in one call, and characters of a value


class MLflow:
    """Metrics and settings of a run, in `mlruns/mlflow.db`, or where MLFLOW_TRACKING_URI says.

    That is a database of SQLite, since MLflow 3 refuses its former store of files. The metrics
    `evaluation` and `generation` are the numbers of the last ones that it has, so that after a kill
    it is told nothing twice.
    """

    PACKAGES: ClassVar = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, described: Described, mark: Mark) -> None:
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        folder, where = described.path.absolute() / FOLDER, None
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            make_folder(folder)
            uri, where = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        if mark.id:
            last = self._client.get_run(mark.id).data.metrics
            self._client.update_run(mark.id, status="RUNNING")
            done = {event: int(last.get(event, -1)) + 1 for event in ("evaluation", "generation")}
            self.mark = Mark(**done, id=mark.id)
            return
        experiment = self._client.get_experiment_by_name(described.name)
        number = experiment.experiment_id if experiment else None
        number = number or self._client.create_experiment(described.name, artifact_location=where)
        run = self._client.create_run(number, run_name=described.path.name).info.run_id
        params = [
            Param(key, str(value)[:LONGEST])
            for key, value in flat(described.settings)
            if value is not None
        ]
        for i in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run, params=params[i : i + MOST_PARAMS])
        self.mark = Mark(id=run)

    def write(self, record: Record) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        named = {f"{record.event}/{name}": value for name, value in record.metrics.items()}
        named[record.event] = record.number
        metrics = [Metric(name, value, now, record.number) for name, value in named.items()]
        self._client.log_batch(self.mark.id, metrics=metrics)

    def flush(self) -> None:
        pass

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self.mark.id, "FINISHED" if finished else "KILLED")
