//! PAX extended header records: `LENGTH KEY=VALUE\n`.

use super::Time;

/// What PAX records say of the next entry. Absent keys leave the header's own values.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) uname: Option<Vec<u8>>,
    pub(super) gname: Option<Vec<u8>>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
    /// The file is stored sparse (`GNU.sparse.*`).
    pub(super) sparse: bool,
    /// Something besides a comment was said.
    pub(super) meaningful: bool,
}

/// Reads the data of an `x` or `g` header.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, String> {
    let mut out = Records::default();
    while !data.is_empty() {
        let space = data.iter().position(|&b| b == b' ').ok_or("a PAX record has no length")?;
        let length: usize = std::str::from_utf8(&data[..space])
            .ok()
            .and_then(|s| s.parse().ok())
            .ok_or("a PAX record's length is not a number")?;
        let record =
            data.get(..length).ok_or_else(|| format!("a PAX record of {length} bytes ends behind its header"))?;
        let body = record
            .get(space + 1..)
            .and_then(|r| r.strip_suffix(b"\n"))
            .ok_or("a PAX record does not end in a newline")?;
        data = &data[length..];
        let eq = body.iter().position(|&b| b == b'=').ok_or("a PAX record has no '='")?;
        let (key, value) = (&body[..eq], &body[eq + 1..]);
        let key = std::str::from_utf8(key).map_err(|_| "a PAX key is not UTF-8")?;
        out.meaningful |= key != "comment";
        let number = || {
            std::str::from_utf8(value)
                .ok()
                .and_then(|s| s.parse().ok())
                .ok_or_else(|| format!("PAX {key} is not a number"))
        };
        match key {
            "path" => out.path = Some(value.into()),
            "linkpath" => out.link = Some(value.into()),
            "size" => out.size = Some(number()?),
            "uid" => out.uid = Some(number()?),
            "gid" => out.gid = Some(number()?),
            "uname" => out.uname = Some(value.into()),
            "gname" => out.gname = Some(value.into()),
            "mtime" => out.mtime = Some(time(value).ok_or("PAX mtime is not a time")?),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    out.xattrs.retain(|(n, _)| n != name);
                    out.xattrs.push((name.into(), value.into()));
                }
                out.sparse |= key.starts_with("GNU.sparse.");
            }
        }
    }
    Ok(out)
}

/// `[-]SECONDS[.FRACTION]`, to the nanosecond, rounded down.
fn time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Time { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with its length in front.
    fn record(body: &[u8]) -> Vec<u8> {
        let length = (body.len() + 3..body.len() + 20)
            .find(|n| n.to_string().len() + body.len() + 2 == *n)
            .expect("some length fits");
        [format!("{length} ").as_bytes(), body, b"\n"].concat()
    }

    #[test]
    fn records_are_read_with_any_bytes_in_values() {
        let data = [record(b"path=a b=c"), record(b"SCHILY.xattr.user.x=\0\n"), record(b"mtime=1.5000001")].concat();
        let r = parse(&data).expect("valid");
        assert_eq!(r.path.as_deref(), Some(&b"a b=c"[..]));
        assert_eq!(r.xattrs, [("user.x".to_owned(), b"\0\n".to_vec())]);
        assert_eq!(r.mtime, Some(Time { seconds: 1, nanos: 500_000_100 }));
        assert!(r.meaningful && !parse(&record(b"comment=x")).expect("valid").meaningful);
    }

    #[test]
    fn times_round_down() {
        for (text, seconds, nanos) in [("0", 0, 0), ("-0.25", -1, 750_000_000), ("12.0000000019", 12, 1), ("-3", -3, 0)]
        {
            assert_eq!(time(text.as_bytes()), Some(Time { seconds, nanos }), "{text}");
        }
        assert_eq!(time(b"1.x"), None);
    }

    #[test]
    fn damaged_records_are_named_not_panicked_on() {
        for bad in [&b"x"[..], b"5 a=b\n", b"99 a=b\n", b"6 ab\n", b"0 a=b\n", b"1 ", b" a=b\n", b"13 size=large\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
