// A Cloudflare worker: keeps one result for each class of Accept. Without it, Cloudflare keeps one
// for each URL and gives it to every browser, whatever `Vary` says.

const NAMED = /^\s*image\/(avif|webp)\s*(;.*)?$/i;
const REFUSED = /;\s*q\s*=\s*0?(\.0*)?\s*(;|$)/i;

export function acceptClass(header) {
  const accepted = new Set();
  for (const part of header.split(",")) {
    const named = NAMED.exec(part);
    if (named && !REFUSED.test(named[2] ?? "")) {
      accepted.add(named[1].toLowerCase());
    }
  }
  const names = ["avif", "webp"].filter((name) => accepted.has(name));
  return names.map((name) => `image/${name},`).join("") + "*/*";
}

export default {
  async fetch(request, environment, context) {
    const url = new URL(request.url);
    const read = request.method === "GET" || request.method === "HEAD";
    const own = request.headers.has("Authorization") || request.headers.has("Range");
    if (!read || own || !/^\/thumb(\/|$)/.test(url.pathname)) {
      return fetch(request);
    }
    const accept = acceptClass(request.headers.get("Accept") ?? "");

    // The class stands in the key alone: in the URL, it would break signatures.
    const name = new URL(url);
    name.searchParams.append("accept-class", accept);
    const key = new Request(name, { method: "GET" });
    const kept = await caches.default.match(key);
    if (kept) {
      return kept;
    }
    const headers = new Headers(request.headers);
    headers.set("Accept", accept);
    // Cloudflare's own cache would not see the difference.
    const answer = await fetch(new Request(request, { headers }), { cache: "no-store" });
    if (request.method === "GET" && answer.status === 200) {
      const copy = new Response(answer.clone().body, answer);
      copy.headers.delete("Vary");
      context.waitUntil(caches.default.put(key, copy));
    }
    return answer;
  },
};
