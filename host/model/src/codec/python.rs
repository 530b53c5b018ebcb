//! Parses and formats numbers and JSON as Python does.
//!
//! Feast converts values with Python's constructors (`type_map.py`: `int(x)`, `float(x)`, `str(x)`, `json.dumps(x)`),
//! so their rules determine which text is a number and how a number is formatted. Every public function names the
//! Python function that it implements.

use std::fmt::Write as _;

use super::Cell;

/// Why a string or a number is not a 64-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntError {
    /// It is not an integer literal.
    Literal,
    /// It is an integer that is out of the range of 64 bits.
    Range,
}

/// An exact decimal number, split at its decimal point.
struct Decimal {
    negative: bool,
    /// All digits, without the point.
    digits: String,
    /// The number of digits before the decimal point. If it is negative, its magnitude is the number of zeros between
    /// the point and the first digit.
    point: i64,
}

/// The maximum magnitude of an exponent. A larger exponent is replaced by this one, which is out of range for every
/// type, so that calculations cannot overflow.
const EXPONENT_MAX: i64 = 100_000;
/// More digits than any 64-bit integer has.
const INT_DIGITS_MAX: usize = 20;

/// Implements `int(text)`. Surrounding whitespace, a sign, and single underscores between digits are accepted.
///
/// # Errors
/// [`IntError`].
pub fn int(text: &str) -> Result<i64, IntError> {
    let trimmed = text.trim();
    if let Ok(value) = trimmed.parse() {
        return Ok(value);
    }
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    let is_group = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    if !digits.split('_').all(is_group) {
        return Err(IntError::Literal);
    }
    trimmed.replace('_', "").parse().map_err(|_| IntError::Range)
}

/// Implements `float(text)`. Surrounding whitespace and single underscores between digits are accepted, and so are
/// `inf`, `infinity` and `nan` in any case.
#[must_use]
pub fn float(text: &str) -> Option<f64> {
    let trimmed = text.trim();
    if !trimmed.contains('_') {
        return trimmed.parse().ok();
    }
    let bytes = trimmed.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let all_between_digits = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'_')
        .all(|(at, _)| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)));
    if all_between_digits { trimmed.replace('_', "").parse().ok() } else { None }
}

/// Implements `str(value)` of a `float`: the shortest digits, with an exponent if the magnitude is below 1e-4 or at
/// least 1e16.
#[must_use]
pub fn float_text(value: f64) -> String {
    if value.is_finite() { positional(&format!("{value:e}")) } else { special(value) }
}

/// Implements `str(value)` of a `numpy.float32`: the shortest digits that identify a single.
#[must_use]
pub fn single_text(value: f32) -> String {
    if value.is_finite() { positional(&format!("{value:e}")) } else { special(value.into()) }
}

/// Implements `str(value)` of a `decimal.Decimal` with this unscaled value and this scale. The unscaled value has an
/// optional minus sign and at least one digit.
#[must_use]
pub fn decimal_text(unscaled: &str, scale: i64) -> String {
    let (sign, digits) = unscaled.strip_prefix('-').map_or(("", unscaled), |digits| ("-", digits));
    let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let adjusted = count - 1 - scale;
    if scale >= 0 && adjusted >= -6 {
        if scale == 0 {
            return format!("{sign}{digits}");
        }
        let width = usize::try_from(scale).unwrap_or_default() + 1;
        let padded = format!("{digits:0>width$}");
        let (whole, fraction) = padded.split_at(padded.len() + 1 - width);
        return format!("{sign}{whole}.{fraction}");
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}E{adjusted:+}")
}

/// Returns whether `decimal.Decimal(text)` accepts a string. As in libmpdec, which Python uses on 64-bit platforms, exponents
/// are limited.
#[must_use]
pub fn is_decimal(text: &str) -> bool {
    let plain = text.trim().replace('_', "");
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let lower = unsigned.to_ascii_lowercase();
    if matches!(&*lower, "inf" | "infinity") {
        return true;
    }
    if let Some(payload) = lower.strip_prefix("snan").or_else(|| lower.strip_prefix("nan")) {
        return payload.bytes().all(|byte| byte.is_ascii_digit());
    }
    Decimal::parse(&plain).is_some() && has_decimal_exponent(&lower)
}

/// Returns whether the exponent of a decimal is in the range of Python's `decimal`. `number` is a number in lower case.
fn has_decimal_exponent(number: &str) -> bool {
    /// `decimal.MAX_EMAX`.
    const EXPONENT_MAX: i128 = 999_999_999_999_999_999;
    /// `decimal.MIN_ETINY`.
    const EXPONENT_MIN: i128 = -1_999_999_999_999_999_997;
    let Some((mantissa, exponent)) = number.split_once('e') else { return true };
    let Ok(exponent) = exponent.parse::<i128>() else { return false };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let length = |digits: &str| i128::try_from(digits.len()).unwrap_or(i128::MAX);
    // The exponent of the last digit, and that of the first significant one.
    let last = exponent.saturating_sub(length(fraction));
    let digits = format!("{whole}{fraction}");
    let significant = length(digits.trim_start_matches('0')).max(1);
    last >= EXPONENT_MIN && last.saturating_add(significant - 1) <= EXPONENT_MAX
}

/// Returns whether `uuid.UUID(text)` accepts a string: 32 hexadecimal digits. Hyphens, surrounding braces, `urn:` and
/// `uuid:` are ignored.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let plain = text.replace("urn:", "").replace("uuid:", "");
    let plain = plain.trim_matches(['{', '}']);
    let digits = plain.bytes().filter(|byte| *byte != b'-');
    digits.clone().count() == 32 && digits.into_iter().all(|byte| byte.is_ascii_hexdigit())
}

/// Truncates an exact decimal number to an integer as `int(Decimal(text))` does. Also returns whether a fraction was
/// lost.
///
/// # Errors
/// [`IntError`].
pub fn whole_of_decimal(text: &str) -> Result<(i64, bool), IntError> {
    let number = Decimal::parse(text).ok_or(IntError::Literal)?;
    let leading = number.digits.bytes().take_while(|byte| *byte == b'0').count();
    let significant = &number.digits[leading..];
    let point = number.point - i64::try_from(leading).unwrap_or(i64::MAX);
    if significant.is_empty() || point <= 0 {
        return Ok((0, !significant.is_empty()));
    }
    let point = usize::try_from(point).map_err(|_| IntError::Range)?;
    if point > INT_DIGITS_MAX {
        return Err(IntError::Range);
    }
    let mut digits: String = significant.chars().take(point).collect();
    let zeros = point.saturating_sub(digits.len());
    digits.extend(std::iter::repeat_n('0', zeros));
    let sign = if number.negative { "-" } else { "" };
    let value = format!("{sign}{digits}").parse().map_err(|_| IntError::Range)?;
    let has_fraction = significant.bytes().skip(point).any(|byte| byte != b'0');
    Ok((value, has_fraction))
}

/// Implements `str(value)` of a `bytes`: printable ASCII unchanged, everything else escaped.
#[must_use]
pub fn bytes_text(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { b'"' } else { b'\'' };
    let mut out = format!("b{}", char::from(quote));
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            byte if byte == quote => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..0x7f => out.push(char::from(byte)),
            byte => push_hex(&mut out, "\\x", u16::from(byte), 2),
        }
    }
    out.push(char::from(quote));
    out
}

/// Implements `json.dumps(value)`: a space after commas and colons, and ASCII only.
///
/// NaN becomes `null`, unlike in Python. Returns `None` for values that JSON cannot represent: bytes, instants,
/// infinities, and numbers beyond the range of doubles.
#[must_use]
pub fn json_text(cell: &Cell) -> Option<String> {
    let mut out = String::new();
    push_json(&mut out, cell)?;
    Some(out)
}

fn push_json(out: &mut String, cell: &Cell) -> Option<()> {
    match cell {
        Cell::Null => out.push_str("null"),
        Cell::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Cell::Int(value) => out.push_str(itoa::Buffer::new().format(*value)),
        Cell::Number(text) if text.parse::<f64>().is_ok_and(f64::is_finite) => out.push_str(text),
        Cell::Single(value) if value.is_nan() => out.push_str("null"),
        Cell::Single(value) if value.is_finite() => out.push_str(&float_text(f64::from(*value))),
        Cell::Float(value) if value.is_nan() => out.push_str("null"),
        Cell::Float(value) if value.is_finite() => out.push_str(&float_text(*value)),
        Cell::Text(text) => push_json_text(out, text),
        Cell::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                push_json(out, item)?;
            }
            out.push(']');
        }
        Cell::Map(entries) => {
            out.push('{');
            for (i, (name, value)) in entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                push_json_text(out, name);
                out.push_str(": ");
                push_json(out, value)?;
            }
            out.push('}');
        }
        Cell::Number(_) | Cell::Single(_) | Cell::Float(_) | Cell::Bytes(_) | Cell::Instant(_) | Cell::Zoned(_) => {
            return None;
        }
    }
    Some(())
}

fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(letter),
            other => {
                let mut units = [0; 2];
                other.encode_utf16(&mut units).iter().for_each(|unit| push_hex(out, "\\u", *unit, 4));
            }
        }
    }
    out.push('"');
}

fn push_hex(out: &mut String, prefix: &str, value: u16, width: usize) {
    out.push_str(prefix);
    // Writing to a string does not fail.
    let _ = write!(out, "{value:0width$x}");
}

fn special(value: f64) -> String {
    let text = match value {
        value if value.is_nan() => "nan",
        value if value > 0.0 => "inf",
        _ => "-inf",
    };
    text.to_owned()
}

/// Converts a number from Rust's scientific notation, such as `-1.25e-7`, to the format of Python's `repr`.
fn positional(scientific: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    if !(-4..16).contains(&exponent) {
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{exponent_sign}{:02}", exponent.unsigned_abs());
    }
    let digits = mantissa.replace('.', "");
    let shift = usize::try_from(exponent.unsigned_abs()).unwrap_or_default();
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(shift - 1));
    }
    let padded = format!("{digits:0<width$}", width = shift + 1);
    let (whole, fraction) = padded.split_at(shift + 1);
    format!("{sign}{whole}.{}", if fraction.is_empty() { "0" } else { fraction })
}

// === impl Decimal ===

impl Decimal {
    /// Parses an optional sign, digits with at most one decimal point, and an optional exponent.
    fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                let is_negative = exponent.starts_with('-');
                let size = digits.parse::<i64>().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
                (mantissa, if is_negative { -size } else { size })
            }
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let point = i64::try_from(whole.len()).ok()? + exponent;
        Some(Self { negative, digits, point })
    }
}

#[cfg(test)]
mod tests;
