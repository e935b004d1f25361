//! The one HTTP client: TLS from the system store, proxies, retry, redaction. Nothing else names the HTTP crate.
