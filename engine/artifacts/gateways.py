"""Trustless IPFS gateways over HTTP: several, of which none is trusted.

Source: Trustless Gateway (specs.ipfs.tech/http-gateways/trustless-gateway): `format=car` with `dag-scope=all`, and
`format=raw` for one block.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from engine.artifacts.car import CarReader
from engine.artifacts.dag import Forged
from engine.artifacts.job import Job
from engine.artifacts.replicas import Attempt, Replicas
from engine.artifacts.web import Again, Web, delays, reason, refusal
from engine.core.cid import Cid
from engine.core.errors import InferenceError, SetupError
from engine.schemas.storage import IpfsSpec
from engine.transports.transport import HttpReply, origin

DEFAULT = ("http://127.0.0.1:8080", "https://trustless-gateway.link")
"""A node on this machine (Kubo's default port), then the public gateway of the IPFS Foundation."""
MAX_UNASKED_BYTES = 64 * 1024 * 1024
"""Useless blocks in a CAR after which it is dropped, in bytes."""

Take = Callable[[Cid, bytes], bool]
"""Takes a block; False: it was not missing. Raises Forged."""


class Gateways:
    """The requests of one fetch to its gateways, and their known health."""

    def __init__(self, job: Job, web: Web) -> None:
        self._job, self._web, self._spec = job, web, job.spec.ipfs
        self._replicas = Replicas(gateways_of(self._spec), job.clock, job.rng)
        self._reasons: dict[str, str] = {}

    async def car(self, root: Cid, path: str, take: Take) -> None:
        """Takes the blocks of a CAR of all below the path, from the first gateway that sends one, complete or cut.

        Returns without a block if no gateway sends one: single blocks are requested then. Raises SetupError.
        """
        where = "/".join(["", "ipfs", str(root), *(quote(part, safe="") for part in path.split("/") if part)])
        headers = {"accept": "application/vnd.ipld.car; version=1; order=dfs; dups=n", "accept-encoding": "identity"}
        for attempt in self._replicas.attempts():
            try:
                reply = await self._web.get(f"{attempt.name}{where}?format=car&dag-scope=all", headers)
                if reply.status != 200:
                    await reply.aclose()
                    raise refusal(reply, attempt.name)
            except Again as error:
                self._note(attempt, error)
                continue
            except SetupError as error:
                attempt.worked()
                self._reasons[attempt.name] = str(error)
                continue
            taken = 0
            try:
                async for _ in self._blocks(reply, take):
                    taken += 1
                attempt.worked()
                return
            except (ValueError, InferenceError) as error:
                self._note(attempt, error)
            except Forged as error:
                self._expel(attempt, error)
            finally:
                await reply.aclose()
            if taken:
                return

    async def block(self, cid: Cid) -> bytes:
        """Returns one block, verified. Raises SetupError when no gateway has it."""
        pauses = delays()
        for left in reversed(range(self._job.spec.tries)):
            again = False
            for attempt in self._replicas.attempts():
                try:
                    block = await self._one(attempt, cid)
                    attempt.worked()
                    return block
                except (Again, InferenceError) as error:
                    self._note(attempt, error)
                    again = True
                except Forged as error:
                    self._expel(attempt, error)
                except SetupError as error:
                    attempt.worked()
                    self._reasons[attempt.name] = str(error)
            if not again or left == 0:
                break
            await asyncio.sleep(self._job.rng.uniform(0.0, next(pauses)))
        listed = "; ".join(f"{name}: {why}" for name, why in self._reasons.items())
        raise SetupError(f"no gateway has {cid} ({listed}); name others in storage.ipfs.gateways or IPFS_GATEWAY")

    async def _one(self, attempt: Attempt, cid: Cid) -> bytes:
        headers = {"accept": "application/vnd.ipld.raw", "accept-encoding": "identity"}
        reply = await self._web.get(f"{attempt.name}/ipfs/{cid}?format=raw", headers)
        try:
            if reply.status != 200:
                raise refusal(reply, attempt.name)
            block = bytearray()
            async for piece in reply.chunks():
                block += piece
                if len(block) > self._spec.max_block_bytes:
                    raise Forged(
                        f"a block of more than {self._spec.max_block_bytes} bytes (storage.ipfs.max_block_bytes)"
                    )
        finally:
            await reply.aclose()
        try:
            right = cid.fits(bytes(block))
        except ValueError as error:
            raise SetupError(str(error)) from error
        if not right:
            raise Forged(f"bytes that are not {cid}")
        return bytes(block)

    async def _blocks(self, reply: HttpReply, take: Take) -> AsyncIterator[Cid]:
        """Yields the blocks of a CAR that were taken. Raises ValueError, InferenceError, Forged."""
        reader, unasked = CarReader(self._spec.max_block_bytes), 0
        async for piece in reply.chunks():
            for cid, block in reader.feed(piece):
                if take(cid, block):
                    yield cid
                    continue
                unasked += len(block)
                if unasked > MAX_UNASKED_BYTES:
                    raise ValueError("it sends blocks that were not requested")
        reader.close()

    def _note(self, attempt: Attempt, error: Exception) -> None:
        """Marks a gateway as down, or as broken off: others are tried first for a while."""
        attempt.failed()
        self._reasons[attempt.name] = reason(error) if isinstance(error, InferenceError) else str(error)

    def _expel(self, attempt: Attempt, error: Forged) -> None:
        attempt.failed()
        self._replicas.ban(attempt.name)
        self._reasons[attempt.name] = f"sent {error}"
        self._job.notify(f"the gateway {origin(attempt.name)} sent {error}; it is not used again")


def gateways_of(spec: IpfsSpec) -> tuple[str, ...]:
    """Returns `storage.ipfs.gateways`, else those of $IPFS_GATEWAY, else DEFAULT."""
    told = spec.gateways or tuple(os.environ.get("IPFS_GATEWAY", "").replace(",", " ").split()) or DEFAULT
    return tuple((place if "://" in place else f"http://{place}").rstrip("/").removesuffix("/ipfs") for place in told)
