//! The `format` file of a tracepoint: where each field of a raw event lies. Kernels move fields about, so no offset is
//! written down anywhere else.

/// A tracepoint as this kernel lays it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    /// What `perf_event_open` wants as `config`; also the event's `common_type`.
    pub id: u64,
    fields: Vec<(String, Field)>,
}

/// Where a field lies in the raw event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    offset: usize,
    size: usize,
}

impl Field {
    /// The field's unsigned value, or nothing when the event is shorter than the format says.
    pub(super) fn read(self, raw: &[u8]) -> Option<u64> {
        let bytes = raw.get(self.offset..self.offset.checked_add(self.size)?)?;
        Some(match *bytes {
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a, b, c, d] => u64::from(u32::from_ne_bytes([a, b, c, d])),
            _ => u64::from_ne_bytes(bytes.try_into().ok()?),
        })
    }
}

impl Format {
    /// Parses the text of a `format` file; what is missing is named.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut id = None;
        let mut fields = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(v) = line.strip_prefix("ID:") {
                id = v.trim().parse().ok();
            } else if let Some(rest) = line.strip_prefix("field:") {
                let mut parts = rest.split(';').map(str::trim);
                // An array's length stands behind the name; no field of ours is one.
                let name =
                    parts.next().and_then(|d| d.split_whitespace().last()).map(|n| n.split('[').next().unwrap_or(n));
                let (mut offset, mut size) = (None, None);
                for part in parts {
                    match part.split_once(':') {
                        Some(("offset", v)) => offset = v.parse().ok(),
                        Some(("size", v)) => size = v.parse().ok(),
                        _ => {}
                    }
                }
                if let (Some(name), Some(offset), Some(size)) = (name, offset, size) {
                    fields.push((name.to_owned(), Field { offset, size }));
                }
            }
        }
        Ok(Self { id: id.ok_or("no ID line")?, fields })
    }

    /// A field that may be absent on some kernels.
    pub(super) fn find(&self, name: &str) -> Option<Field> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, f)| *f)
    }

    /// A field that must be there and hold an integer.
    pub(super) fn field(&self, name: &str) -> Result<Field, String> {
        let field = self.find(name).ok_or_else(|| format!("no field {name:?}"))?;
        match field.size {
            1 | 2 | 4 | 8 => Ok(field),
            n => Err(format!("field {name:?} has {n} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: &str = "name: mm_filemap_add_to_page_cache\nID: 600\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:unsigned long i_ino;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:dev_t s_dev;\toffset:32;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned char order;\toffset:36;\tsize:1;\tsigned:0;\n\
        \tfield:char name[16];\toffset:40;\tsize:16;\tsigned:0;\n\nprint fmt: \"field:x offset:1\"\n";

    #[test]
    fn fields_are_found_where_the_kernel_put_them() {
        let f = Format::parse(ADD).expect("a real format");
        assert_eq!(f.id, 600);
        assert_eq!(f.field("s_dev"), Ok(Field { offset: 32, size: 4 }));
        assert_eq!(f.field("name").expect_err("16 bytes"), "field \"name\" has 16 bytes");
        assert_eq!(f.field("index").expect_err("absent"), "no field \"index\"");
        assert_eq!(f.find("index"), None);
    }

    #[test]
    fn values_of_every_width_are_read_and_short_events_are_not() {
        let raw = [1_u8, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        let at = |offset, size| Field { offset, size }.read(&raw);
        assert_eq!(at(0, 1), Some(1));
        assert_eq!(at(0, 2), Some(u64::from(u16::from_ne_bytes([1, 2]))));
        assert_eq!(at(4, 4), Some(u64::from(u32::from_ne_bytes([3, 0, 0, 0]))));
        assert_eq!(at(4, 8), Some(u64::from_ne_bytes([3, 0, 0, 0, 0, 0, 0, 0])));
        assert_eq!(at(8, 8), None);
        assert_eq!(at(usize::MAX, 8), None);
    }

    #[test]
    fn a_text_without_id_is_refused() {
        assert!(Format::parse("name: x\nformat:\n").is_err());
    }
}
