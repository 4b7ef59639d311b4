// A CloudFront function (runtime cloudfront-js-2.0) for viewer requests: four classes of Accept in
// place of one for each browser. Use it with cloudfront-cache-policy.json, which keys by Accept.

var NAMED = /^\s*image\/(avif|webp)\s*(;.*)?$/i;
var REFUSED = /;\s*q\s*=\s*0?(\.0*)?\s*(;|$)/i;

function acceptClass(header) {
  var accepted = {};
  header.split(",").forEach(function (part) {
    var named = NAMED.exec(part);
    if (named && !REFUSED.test(named[2] || "")) {
      accepted[named[1].toLowerCase()] = true;
    }
  });
  return ["avif", "webp"]
    .filter(function (name) { return accepted[name]; })
    .map(function (name) { return "image/" + name + ","; })
    .join("") + "*/*";
}

function handler(event) {
  var request = event.request;
  if (/^\/thumb(\/|$)/.test(request.uri)) {
    var accept = request.headers.accept;
    var lines = accept ? accept.multiValue || [accept] : [];
    var whole = lines.map(function (line) { return line.value; }).join(",");
    request.headers.accept = { value: acceptClass(whole) };
  }
  return request;
}
