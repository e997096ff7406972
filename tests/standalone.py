"""A Spark cluster on this machine: a standalone master and workers, each a process of its own, loopback only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def driver_environment() -> dict[str, str]:
    """Return the environment of a driver on this machine."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": HOST}


@contextmanager
def standalone(folder: Path, workers: int) -> Iterator[str]:
    """Start a master and workers of one core each, and give the master's address; raises TimeoutError."""
    import pyspark

    port, started = free_port(), list[subprocess.Popen[bytes]]()
    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = {**os.environ, "SPARK_LOCAL_IP": HOST, "SPARK_WORKER_DIR": str(folder), "SPARK_NO_DAEMONIZE": "1"}
    url = f"spark://{HOST}:{port}"

    def start(*arguments: str) -> None:
        log = (folder / f"{len(started)}.log").open("w")
        call = [str(spark_class), *arguments, "--host", HOST, "--webui-port", str(free_port())]
        started.append(subprocess.Popen(call, env=environment, stdout=log, stderr=log, start_new_session=True))

    try:
        start("org.apache.spark.deploy.master.Master", "--port", str(port))
        for _ in range(workers):
            start("org.apache.spark.deploy.worker.Worker", url, "-c", "1", "-m", "1g")
        deadline = time.monotonic() + 60
        while (folder / "0.log").read_text().count("Registering worker") < workers:
            if time.monotonic() > deadline:
                raise TimeoutError("no worker has come to Spark's master")
            time.sleep(0.2)
        yield url
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
