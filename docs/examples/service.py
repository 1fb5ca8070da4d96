"""A web service and a node in one: `VIRTBUS_SERVER=nats://127.0.0.1:4222 uvicorn service:app`, then `curl -X POST :8000/web1/start`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, Response
from msgspec import json

from orchestrator.client import Client
from workers.worker import Worker


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    broker = os.environ["VIRTBUS_SERVER"]
    worker = Worker(broker, node="service", hypervisors=["test:///default"], data_dir="service-node")
    async with Client.connect(broker) as app.state.vm, anyio.create_task_group() as tasks, worker:
        await tasks.start(worker.run)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/{domain}/start")
async def start(domain: str) -> Response:
    result = await app.state.vm.attempt(domain, "start")
    return Response(json.encode(result), 200 if result.ok else 409)
