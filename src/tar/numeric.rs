//! Numbers of tar headers: octal text, or GNU's big-endian two's complement when the first bit is set.

/// Reads a numeric field; `None` when it is neither form or does not fit.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 is the sign; the first byte has six value bits.
        let negative = first & 0x40 != 0;
        let mut value = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        for &b in rest {
            value = value.checked_mul(256)?.checked_add(i128::from(b))?;
        }
        return i64::try_from(value).ok();
    }
    let text = field.split(|&b| b == 0).next()?;
    let text = text.trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0i64, |n, &c| match c {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(c - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_forms_are_read() {
        let cases: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x02\0", Some(512)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"12x\0", None),
            (b"", None),
        ];
        for (field, want) in cases {
            assert_eq!(parse(field), want, "{field:?}");
        }
    }
}
