# Four classes of Accept in place of one for each browser. A type counts where it is named, with
# q > 0: `*/*` is what clients say that know nothing of newer formats. In Varnish this is included
# by varnish.vcl; in Fastly it is a snippet of the type `recv`.
if (req.url ~ "^/thumb(/|\?|$)") {
  set req.http.X-Accept-Webp = "no";
  set req.http.X-Accept-Avif = "no";
  if (req.http.Accept ~ "(?i)(^|,)\s*image/webp\s*(;|,|$)") {
    set req.http.X-Accept-Webp = "yes";
  }
  if (req.http.Accept ~ "(?i)(^|,)\s*image/webp\s*;([^,]*;)?\s*q\s*=\s*0?(\.0*)?\s*(;|,|$)") {
    set req.http.X-Accept-Webp = "no";
  }
  if (req.http.Accept ~ "(?i)(^|,)\s*image/avif\s*(;|,|$)") {
    set req.http.X-Accept-Avif = "yes";
  }
  if (req.http.Accept ~ "(?i)(^|,)\s*image/avif\s*;([^,]*;)?\s*q\s*=\s*0?(\.0*)?\s*(;|,|$)") {
    set req.http.X-Accept-Avif = "no";
  }
  if (req.http.X-Accept-Avif == "yes" && req.http.X-Accept-Webp == "yes") {
    set req.http.Accept = "image/avif,image/webp,*/*";
  } else if (req.http.X-Accept-Avif == "yes") {
    set req.http.Accept = "image/avif,*/*";
  } else if (req.http.X-Accept-Webp == "yes") {
    set req.http.Accept = "image/webp,*/*";
  } else {
    set req.http.Accept = "*/*";
  }
  unset req.http.X-Accept-Webp;
  unset req.http.X-Accept-Avif;
}
