//! Arguments in the form KEY=VALUE: names that contain `=`, lists of values, values in quotes, and times.

use larder_common::clock;

/// Splits an argument into a name and values. If the argument begins with known names, splits it after the longest of
/// them, so that names may contain `=`. Otherwise, splits it at the first `=`.
pub(super) fn split<'a, 'n>(argument: &'a str, known: impl IntoIterator<Item = &'n str>) -> Option<(&'a str, &'a str)> {
    let is_meant = |name: &&str| argument.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    let meant = known.into_iter().filter(is_meant).map(str::len).max().or_else(|| argument.find('='));
    meant.map(|end| (&argument[..end], &argument[end + 1..]))
}

/// Splits text into values at commas. A value that is a JSON string may contain commas.
pub(super) fn values(text: &str) -> Vec<String> {
    let (mut values, mut rest) = (Vec::new(), text);
    loop {
        let (value, after) = quoted(rest).unwrap_or_else(|| {
            let (value, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            (value.to_owned(), after)
        });
        values.push(value);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return values,
        }
    }
}

/// Returns the value of an argument that has exactly one value. Commas do not split it.
pub(super) fn single_value(text: &str) -> String {
    quoted(text).filter(|(_, after)| after.is_empty()).map_or_else(|| text.to_owned(), |(value, _)| value)
}

/// Reads a JSON string at the start of the text. Returns the string and the text after it. Returns `None` if there is
/// no such string, or if it does not end at a comma or at the end of the text.
fn quoted(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('"') {
        return None;
    }
    let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = strings.next()?.ok()?;
    let after = &text[strings.byte_offset()..];
    (after.is_empty() || after.starts_with(',')).then_some((value, after))
}

/// Converts a time, such as 2026-01-31T12:00:00Z, to whole seconds since 1970. Syncs convert times in keys in the same
/// way. Returns `None` if the text is not a time.
pub(super) fn seconds(text: &str) -> Option<i64> {
    clock::parse_time(text).map(|micros| micros.div_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_signs_in_names_are_kept() {
        let known = ["id", "a=b", "a=b=c", "x=y"];
        let split = |argument| split(argument, known).unwrap();
        assert_eq!(split("id=1=2,3"), ("id", "1=2,3"));
        assert_eq!(split("a=b=c=7,8"), ("a=b=c", "7,8"));
        assert_eq!(split("a=b=9"), ("a=b", "9"));
        assert_eq!(split("x=y=1"), ("x=y", "1"));
        assert_eq!(split("other=1=2"), ("other", "1=2"));
        assert_eq!(super::split("id", known), None);
    }

    #[test]
    fn quoted_value_keeps_commas() {
        for (text, expected) in [
            ("a,b", &["a", "b"][..]),
            (r#""a,b""#, &["a,b"]),
            (r#""a,b",c,"d \"e\"""#, &["a,b", "c", r#"d "e""#]),
            ("", &[""]),
            ("a,", &["a", ""]),
            // These values are not complete JSON strings, so the quotes are part of the values.
            (r#""a,b"#, &["\"a", "b"]),
            (r#""a"b,c"#, &[r#""a"b"#, "c"]),
            (r#"a"b,c""#, &["a\"b", "c\""]),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
        assert_eq!([r#""a,b""#, "a,b", r#""a","b""#].map(single_value), ["a,b", "a,b", r#""a","b""#]);
    }

    #[test]
    fn times_become_whole_seconds() {
        assert_eq!(seconds("2026-11-20T01:02:03Z"), Some(1_795_136_523));
        assert_eq!(seconds("1969-12-31T23:59:59.5Z"), Some(-1));
        assert_eq!(["1795136523", "ann", ""].map(seconds), [None; 3]);
    }
}
