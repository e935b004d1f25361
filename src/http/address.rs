//! Questions about URLs: what may be shown, what may be trusted.

use std::net::IpAddr;

use super::Url;

/// Whether a host, with or without a port, is this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => v6,
        // More than one colon outside brackets is an IPv6 address without a port.
        None => match host.rsplit_once(':') {
            Some((name, _)) if !name.contains(':') => name,
            _ => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether what is sent to the URL can be read by nobody in between.
pub fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url.host_str().unwrap_or_default())
}

/// Whether two URLs have scheme, host and port in common.
pub fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

/// A URL as it may stand in a message: no user, no query values, no path segments long enough to be a signed token.
pub fn redacted(url: &Url) -> String {
    /// `sha256:` and its digits have 71; signed download paths several hundreds.
    const LONGEST_SEGMENT: usize = 128;
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let mut text = format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default());
    for segment in url.path_segments().into_iter().flatten() {
        text.push('/');
        text.push_str(if segment.len() > LONGEST_SEGMENT { "***" } else { segment });
    }
    for (i, (key, _)) in url.query_pairs().enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        text.push_str(&key);
        text.push_str("=***");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(s: &str) -> Url {
        s.parse().unwrap_or_else(|e| panic!("{s}: {e}"))
    }

    #[test]
    fn loopback_is_told_by_name_and_number() {
        for yes in ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.9.8.7:80", "[::1]:5000", "[::1]", "::1"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in [
            "",
            "example.com",
            "127.0.0.1.example.com",
            "localhost.example.com:443",
            "10.0.0.1",
            "[fe80::1]:5000",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        let token = "A".repeat(300);
        let shown = redacted(&url(&format!("https://user:word@h.io:444/v2/a/{token}?digest=sha256:0&X-Sig=abc")));
        assert_eq!(shown, "https://h.io:444/v2/a/***?digest=***&X-Sig=***");
        let blob = "https://h.io/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(redacted(&url(blob)), blob);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert!(same_origin(&url("https://h.io/a"), &url("https://h.io:443/b?c")));
        for other in ["http://h.io/a", "https://h.io:8443/a", "https://i.io/a", "https://h.io.evil.com/a"] {
            assert!(!same_origin(&url("https://h.io/a"), &url(other)), "{other}");
        }
    }
}
