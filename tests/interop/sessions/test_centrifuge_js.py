"""npm ``centrifuge``, the newest and one about a year old, in Node and in a Chromium page, in both codecs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browsers import chromium
from tests.interop.installed import node_modules
from tests.interop.sessions.served import Server, serving

pytestmark = pytest.mark.interop
HERE = Path(__file__).parent
PACKAGES = ("centrifuge", "centrifuge-before")
CODECS = ("json", "protobuf")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sdk")) as server:
        yield server


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("package", PACKAGES)
def test_in_node(server: Server, package: str, codec: str) -> None:
    node = shutil.which("node") or shutil.which("nodejs")
    assert node is not None, "Node is missing: apt-get install nodejs npm"
    url = f"ws://127.0.0.1:{server.port}/connection/-/session"
    folder = node_modules(HERE / "package.json")
    command = [node, str(HERE / "smoke.mjs"), url, package, codec]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "ok", f"{done.stdout}\n{done.stderr}\n{server.log[-3000:]}"


IN_THE_PAGE = """
async ([url, isProtobuf]) => {
  const pack = (value) => (isProtobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
  const unpack = (data) => (isProtobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
  // its own name, by which the server knows that a new connection replaces a lost one
  const named = url + "?session=" + crypto.randomUUID();
  const client = new Centrifuge(named, {minReconnectDelay: 20, maxReconnectDelay: 100});
  const topic = "page:" + crypto.randomUUID();
  const sub = client.newSubscription(topic);
  const got = [];
  sub.on("publication", (context) => got.push(unpack(context.data).n));
  client.connect();
  sub.subscribe();
  await sub.ready(5000);
  await sub.publish(pack({n: 1}));
  // the line is lost, and what is published meanwhile comes with the reconnect
  const other = new Centrifuge(url);
  other.connect();
  await other.ready(5000);
  client._transport._transport.close(4000);
  await other.publish(topic, pack({n: 2}));
  const until = Date.now() + 8000;
  while (got.length < 2 && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 10));
  const presence = await other.presenceStats(topic);
  client.disconnect();
  other.disconnect();
  return {got, clients: presence.numClients};
}
"""


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("package", PACKAGES)
def test_in_a_page(server: Server, package: str, codec: str) -> None:
    dist = node_modules(HERE / "package.json") / "node_modules" / package / "dist"
    script = "centrifuge.protobuf.js" if codec == "protobuf" else "centrifuge.js"
    assert (dist / script).exists(), sorted(one.name for one in dist.iterdir())
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{server.url}/page?sdk={package}/dist/{script}")
        url = f"ws://127.0.0.1:{server.port}/connection/-/session"
        found = page.evaluate(IN_THE_PAGE, [url, codec == "protobuf"])
    assert found["got"] == [1, 2], json.dumps(found)
    assert found["clients"] == 1, json.dumps(found)
