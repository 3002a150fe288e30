"""Execute one job in a process of its own: `python -m zoo.run.isolate JOB.json REPLY.json`."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from zoo.run.compose import Job
from zoo.spec.errors import UserError, ZooError
from zoo.spec.files import write_atomically
from zoo.spec.store import StoredRecord, read
from zoo.spec.streams import keep_working, replace_unprintable


def isolate(job: Job) -> StoredRecord:
    """Execute the job in a child process; the record of a process that vanished is written here."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        job_file, reply_file = Path(folder) / "job.json", Path(folder) / "reply.json"
        job_file.write_text(json.dumps(job.to_json()), "utf-8")
        command = [sys.executable, "-m", "zoo.run.isolate", str(job_file), str(reply_file)]
        process = subprocess.Popen(command, stdout=sys.stderr)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # the child had the same signal and is writing its record
            code = process.wait()
        if reply_file.exists():
            reply = json.loads(reply_file.read_text("utf-8"))
            if "error" in reply:
                raise UserError(reply["error"])
            record = read(Path(reply["record"]))
            if isinstance(record, str):
                raise ZooError(f"{reply['record']}: {record}")
            return StoredRecord(reply["record"], record)
    from zoo.run.execute import record_lost

    if code == -signal.SIGKILL:
        return record_lost(
            job, "out-of-memory", "the process was killed (SIGKILL); the system does so when memory runs out"
        )
    return record_lost(job, "failed", f"the process ended with status {code} and wrote no record")


def main(job_file: str, reply_file: str) -> None:
    """Execute the job of a file and write the record's path, or the user's mistake, to another."""
    _die_with_parent()
    replace_unprintable()
    keep_working("stdout", "stderr")
    from zoo.run.execute import execute

    job = Job.from_json(json.loads(Path(job_file).read_text("utf-8")))
    try:
        reply: dict[str, Any] = {"record": str(Path(execute(job).path).absolute())}
    except UserError as error:
        reply = {"error": str(error)}
    write_atomically(Path(reply_file), json.dumps(reply))


def _die_with_parent() -> None:
    """When the sweep is killed, so is this run: it must not go on unseen and hold the run's lock (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
