"""The section `engine` of the run file: where the chunks run. It changes no number, but for a device's rounding."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from saxs_pipeline.fields import Section, misplaced


def _written(form: str, example: str) -> AfterValidator:
    """A text that becomes part of a command: nothing but `form` passes, so that it cannot bring lines of its own."""

    def check(text: str) -> str:
        if not re.fullmatch(form, text):
            raise ValueError(f"write it like {example}, got {text[:60]!r}")
        return text

    return AfterValidator(check)


_Name = Annotated[str, _written(r"[A-Za-z0-9][A-Za-z0-9_.,@+-]{0,99}", "'normal-x86': letters, digits, _ . , @ + -")]


class Slurm(Section):
    """Jobs on a SLURM cluster, each with as many worker processes as cores; the workers open the files by path.

    What else a site asks for (interface, prologue, …) is taken from dask's own `jobqueue.yaml`.
    """

    queue: _Name | None = Field(None, description="SLURM's partition; default: the cluster's")
    account: _Name | None = Field(None, description="what the computing time is booked on")
    jobs: Annotated[int, Field(ge=1, le=1000)] = 1
    cores: Annotated[int, Field(ge=1, le=1024, description="of each job, one worker process per core")]
    memory: Annotated[str, _written(r"[1-9]\d{0,5} ?[KMGT]i?B", "'32 GB'")] = Field(description="of each job")
    walltime: Annotated[str, _written(r"(\d{1,3}-)?\d{1,2}:\d{2}:\d{2}", "'02:00:00' or '1-12:00:00'")] = Field(
        description="of each job, hours:minutes:seconds"
    )


_SCHEDULERS = ("threads", "synchronous", "processes", "local")
_ADDRESS = r"(tcp|tls)://([A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}"


def _scheduler(text: str) -> str:
    if text not in _SCHEDULERS and not re.fullmatch(_ADDRESS, text):
        raise ValueError(
            f"must be one of {', '.join(_SCHEDULERS)}, or the address of a dask scheduler such as tcp://host:8786, "
            f"got {text[:60]!r}"
        )
    return text


class Engine(Section):
    """Where the chunks run; results do not depend on it, but for the rounding of a `device`."""

    scheduler: Annotated[str, AfterValidator(_scheduler)] = Field(
        "threads",
        description="threads, synchronous, processes; local: processes with dask's dashboard; "
        "tcp://host:port or tls://host:port: a dask cluster that is running",
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="default: number of cores")
    chunk: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="frames per task; default: 1 to 32, as many as fit into 16 MiB"
    )
    device: Literal["cpu", "opencl"] = Field(
        "cpu", description="opencl: the pixels are added up on a GPU by pyFAI; needs saxs-pipeline[opencl]"
    )
    slurm: Slurm | None = Field(None, description="start workers as SLURM jobs, in place of a scheduler")

    @property
    def address(self) -> str | None:
        """Of a dask scheduler that is running elsewhere."""
        return self.scheduler if "://" in self.scheduler else None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.slurm is not None and "scheduler" in self.model_fields_set:
            raise misplaced("scheduler", "`slurm` starts a scheduler of its own; remove `scheduler` or `slurm`")
        if self.workers is not None and self.slurm is not None:
            raise misplaced("workers", "with `slurm` there are jobs × cores workers; remove `workers`")
        if self.workers is not None and self.address is not None:
            raise misplaced("workers", f"the cluster at {self.address} has workers of its own; remove `workers`")
        return self
