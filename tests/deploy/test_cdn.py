"""The recipes of deploy/cdn that run at an edge, each as far as it runs here."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from tests.deploy.accepts import ACCEPTS
from tests.deploy.backends import DEPLOY

CDN = DEPLOY / "cdn"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run_script(script: str, *, kind: str) -> object:
    run = subprocess.run(
        [NODE, f"--input-type={kind}", "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@needs_node
def test_the_cloudfront_function_leaves_classes_of_accept():
    events = [
        {"request": {"uri": "/thumb/a.jpg", "headers": {"accept": {"value": sent}}}}
        for sent in ACCEPTS
    ]
    two_lines = {"value": "x", "multiValue": [{"value": "image/webp"}, {"value": "image/avif"}]}
    events += [
        {"request": {"uri": "/thumb", "headers": {"accept": two_lines}}},
        {"request": {"uri": "/thumb", "headers": {}}},
        {"request": {"uri": "/jobs", "headers": {"accept": {"value": "text/event-stream"}}}},
    ]
    script = (
        (CDN / "cloudfront-function.js").read_text()
        + f"\nconst events = {json.dumps(events)};"
        + "\nconsole.log(JSON.stringify(events.map((e) => handler(e).headers.accept.value)));"
    )
    found = run_script(script, kind="commonjs")
    assert found == [*ACCEPTS.values(), "image/avif,image/webp,*/*", "*/*", "text/event-stream"]


def test_the_cloudfront_cache_policy_is_one_that_aws_takes():
    model = ServiceModel(Loader().load_service_model("cloudfront", "service-2"))
    shape = model.operation_model("CreateCachePolicy").input_shape
    policy = json.loads((CDN / "cloudfront-cache-policy.json").read_text())
    report = ParamValidator().validate(policy, shape)
    assert not report.has_errors(), report.generate_report()
    key = policy["CachePolicyConfig"]["ParametersInCacheKeyAndForwardedToOrigin"]
    assert key["HeadersConfig"]["Headers"]["Items"] == ["Accept"]
    assert key["QueryStringsConfig"]["QueryStringBehavior"] == "all"


# What a worker finds at the edge: a cache with keys that are URLs, and a network.
_EDGE = """
import worker from WORKER;
const kept = new Map();
const asked = [];
globalThis.caches = { default: {
  match: async (key) => kept.get(key.url)?.clone(),
  put: async (key, answer) => { kept.set(key.url, answer); },
} };
globalThis.fetch = async (request, options) => {
  asked.push(`${request.method} ${request.url} ${request.headers.get("accept")}`);
  const status = request.url.includes("missing") ? 404 : 200;
  const headers = { vary: "Accept", "cache-control": "public, max-age=60" };
  return new Response(String(asked.length), { status, headers });
};
const answers = [];
for (const [method, path, headers] of REQUESTS) {
  const waiting = [];
  const context = { waitUntil: (promise) => waiting.push(promise) };
  const request = new Request(`https://img.example${path}`, { method, headers });
  const answer = await worker.fetch(request, {}, context);
  answers.push(await answer.text());
  await Promise.all(waiting);
}
console.log(JSON.stringify({ asked, answers, kept: [...kept.keys()] }));
"""


def at_the_edge(*requests: tuple[str, str, dict[str, str]]) -> dict[str, list[str]]:
    worker = json.dumps((CDN / "cloudflare-worker.mjs").as_uri())
    script = _EDGE.replace("WORKER", worker).replace("REQUESTS", json.dumps(requests))
    return run_script(script, kind="module")


@needs_node
def test_the_cloudflare_worker_keeps_a_result_for_each_class():
    path = "/thumb/a.jpg?w=200&sig=k.s"
    found = at_the_edge(*(("GET", path, {"accept": sent}) for sent in ACCEPTS))
    url = f"https://img.example{path}"
    # The URL that was signed, with no word of the class.
    assert set(found["asked"]) == {f"GET {url} {accept}" for accept in ACCEPTS.values()}
    assert len(found["asked"]) == len(found["kept"]) == 4
    by_class = dict(zip(ACCEPTS.values(), found["answers"], strict=True))
    assert [by_class[accept] for accept in ACCEPTS.values()] == found["answers"]


@needs_node
def test_the_cloudflare_worker_keeps_nothing_else():
    found = at_the_edge(
        ("GET", "/thumb/missing.jpg", {}),
        ("HEAD", "/thumb/a.jpg", {}),
        ("GET", "/thumb/a.jpg", {"authorization": "Bearer x"}),
        ("GET", "/thumb/a.jpg", {"range": "bytes=0-9"}),
        ("POST", "/jobs", {}),
        ("GET", "/kit/a.jpg", {}),
    )
    assert found["kept"] == []
    assert len(found["asked"]) == 6
