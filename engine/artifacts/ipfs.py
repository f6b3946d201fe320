"""Source `ipfs`: a file or folder of IPFS, from untrusted gateways."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath

from engine.artifacts.dag import Blocks, Dag
from engine.artifacts.gateways import Gateways
from engine.artifacts.job import Job, Progress
from engine.artifacts.resolve import Artifact
from engine.artifacts.web import Web
from engine.core.cid import Cid, cid_of_json, parse
from engine.core.errors import SetupError
from engine.schemas.sources import IpfsSourceSpec


class IpfsSource:
    """Content of IPFS, in our cache under its own content id. Every block is verified when it arrives."""

    def __init__(self, spec: IpfsSourceSpec) -> None:
        self._spec = spec

    def __str__(self) -> str:
        return f"ipfs://{self._spec.cid}{f'/{self._spec.path}' if self._spec.path else ''}"

    def fetch(self, job: Job) -> Artifact:
        """Raises SetupError: not a content id, no gateway has it, no such path, not a file or folder, too large."""
        spec = self._spec
        try:
            root = parse(spec.cid)
        except ValueError as error:
            raise SetupError(str(error)) from error
        held = None if job.again or spec.path else job.cache.use(str(root))
        if held is None:
            key = cid_of_json({"kind": "ipfs", "cid": str(root), "path": spec.path})
            held = job.once(key, str(self), lambda folder: self._download(root, folder, job))
        return Artifact(held.path, spec.format, str(self), held.cid, held)

    def _download(self, root: Cid, folder: Path, job: Job) -> tuple[Path, str, str]:
        job.notify(f"downloading {self}")
        dag = Dag(root, self._spec.path, Blocks(folder / "blocks"), job.spec.max_bytes)
        if dag.wanted:
            job.run(self._gather(root, dag, job))
        made = dag.write_out(folder / "whole")
        name = PurePosixPath(self._spec.path).name or f"model.{self._spec.format}"
        return made, str(dag.target), name

    async def _gather(self, root: Cid, dag: Dag, job: Job) -> None:
        """Fetches until no block is missing: a CAR first, unless an earlier fetch has left blocks here."""
        progress = Progress(job, str(self))

        def take(cid: Cid, block: bytes) -> bool:
            taken = dag.add(cid, block)
            progress.at(dag.size_bytes)
            return taken

        async with Web(job) as web:
            gateways = Gateways(job, web)
            if job.spec.ipfs.car and dag.size_bytes == 0:
                await gateways.car(root, self._spec.path, take)
            under_way: dict[asyncio.Task[bytes], Cid] = {}
            try:
                while dag.wanted or under_way:
                    asked = set(under_way.values())
                    for cid in dag.wanted:
                        if len(under_way) >= job.spec.ipfs.parallel:
                            break
                        if cid not in asked:
                            under_way[asyncio.create_task(gateways.block(cid))] = cid
                    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        take(under_way.pop(task), task.result())
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)
