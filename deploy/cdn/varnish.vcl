vcl 4.1;
# A cache in front of the balancer. Varnish 7.1 or newer, started with `-p vcl_path=` and the folder
# of this file. To change: where the balancer is, and who may purge.

import std;

backend balancer {
  .host = "127.0.0.1";
  .port = "8080";
  .connect_timeout = 1s;
  .first_byte_timeout = 75s; # longer than `Prefer: wait=60`
  .between_bytes_timeout = 15s;
  .probe = {
    .url = "/balancer";
    .interval = 1s;
    .timeout = 1s;
    .window = 3;
    .threshold = 2;
    .initial = 2;
  }
}

acl purgers {
  "127.0.0.1";
  "::1";
}

sub vcl_recv {
  # By the tags that the service lists in Surrogate-Key, where it is told to:
  # curl -X PURGE -H 'Surrogate-Key: id-cat.jpg preset-card' http://127.0.0.1:6081/
  if (req.method == "PURGE") {
    if (client.ip !~ purgers) {
      return (synth(403));
    }
    if (req.http.Surrogate-Key !~ "^[A-Za-z0-9_.~%-]+( [A-Za-z0-9_.~%-]+)*$") {
      return (synth(400));
    }
    ban("obj.http.Surrogate-Key ~ (^|\s)(" + regsuball(req.http.Surrogate-Key, " ", "|") + ")(\s|$)");
    return (synth(200));
  }

  # What clients say of those before them is not believed.
  unset req.http.Forwarded;
  set req.http.X-Forwarded-For = client.ip;

  if (req.method != "GET" && req.method != "HEAD") {
    return (pass);
  }
  # What a token lets see is nobody else's.
  if (req.http.Authorization || req.url !~ "^/(thumb|info|kit)(/|\?|$)") {
    return (pass);
  }
  include "accept.vcl";

  # Something old goes out while the balancer is well for as long as stale-while-revalidate says, and
  # is asked for behind it. Without a balancer, or where the answer is an error, for as long as
  # stale-if-error does: first it is passed over, and then it may be needed.
  if (req.restarts == 0) {
    unset req.http.X-Stale;
  }
  if (req.http.X-Stale == "passed-over") {
    set req.grace = 0s;
  } else {
    set req.grace = 365d;
  }
  return (hash);
}

sub vcl_hit {
  if (!req.http.X-Stale && obj.ttl <= 0s && std.healthy(req.backend_hint)
      && obj.ttl + std.duration(regsub(obj.http.Cache-Control, "^.*stale-while-revalidate=([0-9]+).*$", "\1s"), 0s) <= 0s) {
    set req.http.X-Stale = "passed-over";
    return (restart);
  }
}

sub vcl_backend_fetch {
  unset bereq.http.X-Stale;
}

sub vcl_backend_response {
  if (beresp.status >= 500) {
    # The old one stays, where there is one.
    if (bereq.is_bgfetch) {
      return (abandon);
    }
    set beresp.ttl = 0s;
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    return (deliver);
  }
  # The longer of both. What is in no header is no time: std.duration takes no other text.
  set beresp.grace = std.duration(regsub(beresp.http.Cache-Control, "^.*stale-while-revalidate=([0-9]+).*$", "\1s"), 0s);
  if (std.duration(regsub(beresp.http.Cache-Control, "^.*stale-if-error=([0-9]+).*$", "\1s"), 0s) > beresp.grace) {
    set beresp.grace = std.duration(regsub(beresp.http.Cache-Control, "^.*stale-if-error=([0-9]+).*$", "\1s"), 0s);
  }
}

sub vcl_deliver {
  if (resp.status >= 500 && req.http.X-Stale == "passed-over") {
    set req.http.X-Stale = "needed";
    return (restart);
  }
  if (obj.hits > 0) {
    set resp.http.X-Cache = "HIT";
  } else {
    set resp.http.X-Cache = "MISS";
  }
  # These were for caches.
  unset resp.http.Surrogate-Key;
  unset resp.http.Cache-Tag;
}
