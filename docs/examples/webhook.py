"""Passes events on to a URL, in order, none left out: `python webhook.py nats://127.0.0.1:4222 http://127.0.0.1:8000/hook place`."""

import asyncio
import sys
from pathlib import Path

import httpx
from msgspec import json

from orchestrator.client import Client


async def main(server: str, url: str, place: Path) -> None:
    async with Client.connect(server, wait=True) as vm, httpx.AsyncClient() as http:
        async for event in (feed := vm.events(kinds=["lifecycle", "command"], after=int(place.read_text()) if place.exists() else 0)):
            await pass_on(http, url, json.encode(event))
            place.with_suffix(".new").write_text(str(feed.sequence))
            place.with_suffix(".new").replace(place)  # killed before this, one comes twice, with one id


async def pass_on(http: httpx.AsyncClient, url: str, event: bytes) -> httpx.Response:
    while True:
        try:
            return (await http.post(url, content=event, headers={"Content-Type": "application/cloudevents+json"})).raise_for_status()
        except httpx.HTTPError as error:
            print("again in a second:", error, file=sys.stderr)
            await asyncio.sleep(1)


asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
