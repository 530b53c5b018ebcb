//! Attribute values: validation, the normal form of numbers, and the order of keys.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// The maximum number of significant digits of a number.
const DIGITS_MAX: usize = 38;

/// The maximum size of an item in bytes.
const ITEM_BYTES_MAX: usize = 400 << 10;

/// A parsed number: `0.d1d2d3… × 10^magnitude`, without zeros at either end of the digits.
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    magnitude: i32,
}

/// Returns an item as DynamoDB returns it, with numbers in their normal form. The error is the reason why DynamoDB
/// rejects the item.
pub(super) fn normal_item(item: &Value) -> Result<Value, String> {
    let attributes = item.as_object().ok_or("an item must be a map of attributes")?;
    let mut normal = Map::new();
    for (name, value) in attributes {
        normal.insert(name.clone(), normal_value(value)?);
    }
    let normal = Value::Object(normal);
    if size(&normal) > ITEM_BYTES_MAX {
        return Err("Item size has exceeded the maximum allowed size".to_owned());
    }
    Ok(normal)
}

/// Returns an attribute value in its normal form.
pub(super) fn normal_value(value: &Value) -> Result<Value, String> {
    let typed = value.as_object().filter(|typed| typed.len() == 1);
    let (kind, inner) = typed
        .and_then(|typed| typed.iter().next())
        .ok_or("Supplied AttributeValue has more than one datatypes set, must contain exactly one")?;
    let texts = || {
        let list = inner.as_array().filter(|list| !list.is_empty());
        let list = list.ok_or("One or more parameter values were invalid: An set may not be empty")?;
        list.iter().map(|text| text.as_str().ok_or("a set must contain strings")).collect::<Result<Vec<_>, _>>()
    };
    let wrong = || format!("{inner} is not a valid value of type {kind}");
    Ok(match kind.as_str() {
        "S" if inner.is_string() => value.clone(),
        "BOOL" if inner.is_boolean() => value.clone(),
        "NULL" if inner == true => value.clone(),
        "B" => {
            STANDARD.decode(inner.as_str().ok_or_else(wrong)?).map_err(|_| wrong())?;
            value.clone()
        }
        "N" => json!({ "N": Decimal::parse(inner.as_str().ok_or_else(wrong)?)?.text() }),
        "NS" => {
            let numbers = texts()?.into_iter().map(|text| Ok(Decimal::parse(text)?.text()));
            json!({ "NS": numbers.collect::<Result<Vec<_>, String>>()? })
        }
        "SS" | "BS" => {
            texts()?;
            value.clone()
        }
        "L" => {
            let list = inner.as_array().ok_or_else(wrong)?;
            json!({ "L": list.iter().map(normal_value).collect::<Result<Vec<_>, _>>()? })
        }
        "M" => {
            let map = inner.as_object().ok_or_else(wrong)?;
            let map = map.iter().map(|(name, value)| Ok((name.clone(), normal_value(value)?)));
            json!({ "M": map.collect::<Result<Map<_, _>, String>>()? })
        }
        _ => return Err(wrong()),
    })
}

/// Returns the approximate size in bytes that DynamoDB calculates for an item or a value.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(size).sum(),
        // The size includes the names of attributes. The name of a type has a size of one byte.
        Value::Object(map) => {
            map.iter().map(|(name, value)| if is_type(name) { 1 } else { name.len() } + size(value)).sum()
        }
        _ => 1,
    }
}

fn is_type(name: &str) -> bool {
    matches!(name, "S" | "N" | "B" | "SS" | "NS" | "BS" | "M" | "L" | "BOOL" | "NULL")
}

/// Returns bytes that sort in the order of the values of one type. Returns `None` for a type that cannot be a key.
pub(super) fn ordered(value: &Value) -> Option<Vec<u8>> {
    let (kind, inner) = value.as_object()?.iter().next()?;
    let text = inner.as_str()?;
    match kind.as_str() {
        "S" => Some(text.as_bytes().to_vec()),
        "B" => STANDARD.decode(text).ok(),
        "N" => Decimal::parse(text).ok().map(|number| number.ordered()),
        _ => None,
    }
}

// === impl Decimal ===

impl Decimal {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("The parameter cannot be converted to a numeric value: {text}");
        let (is_negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| wrong())?),
            None => (rest, 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole.bytes().chain(part.bytes()).collect();
        if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
            return Err(wrong());
        }
        let zeros = all.iter().take_while(|digit| **digit == b'0').count();
        let end = all.iter().rposition(|digit| *digit != b'0').map_or(zeros, |last| last + 1);
        let digits = all[zeros..end].to_vec();
        if digits.len() > DIGITS_MAX {
            return Err(format!("Attempting to store more than {DIGITS_MAX} significant digits in a Number"));
        }
        if digits.is_empty() {
            return Ok(Self { is_negative: false, digits, magnitude: 0 });
        }
        let position = i32::try_from(whole.len()).ok().zip(i32::try_from(zeros).ok()).ok_or_else(wrong)?;
        let magnitude = exponent.checked_add(position.0 - position.1).ok_or_else(wrong)?;
        match magnitude {
            ..-129 => {
                Err("Number underflow. Attempting to store a number with magnitude smaller than supported".to_owned())
            }
            127.. => {
                Err("Number overflow. Attempting to store a number with magnitude larger than supported".to_owned())
            }
            _ => Ok(Self { is_negative, digits, magnitude }),
        }
    }

    /// Formats the number without an exponent.
    fn text(&self) -> String {
        let digits = String::from_utf8_lossy(&self.digits);
        let sign = if self.is_negative { "-" } else { "" };
        match usize::try_from(self.magnitude) {
            _ if digits.is_empty() => "0".to_owned(),
            Ok(0) | Err(_) => {
                let zeros = "0".repeat(usize::try_from(-self.magnitude).unwrap_or(0));
                format!("{sign}0.{zeros}{digits}")
            }
            Ok(whole) if whole >= digits.len() => format!("{sign}{digits}{}", "0".repeat(whole - digits.len())),
            Ok(whole) => format!("{sign}{}.{}", &digits[..whole], &digits[whole..]),
        }
    }

    fn ordered(&self) -> Vec<u8> {
        if self.digits.is_empty() {
            return vec![1];
        }
        // Magnitudes are between -130 and 126.
        let mut bytes = u16::try_from(self.magnitude + 200).unwrap_or(0).to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.digits);
        if self.is_negative {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
            // If the digits of one negative number are a prefix of another's, the longer number is smaller.
            bytes.push(u8::MAX);
        }
        bytes.insert(0, if self.is_negative { 0 } else { 2 });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_one_form() {
        for (text, normal) in [
            ("1.2300e2", "123"),
            ("1.0", "1"),
            ("-0", "0"),
            ("0.00120", "0.0012"),
            ("-12.50", "-12.5"),
            ("007", "7"),
            ("1e3", "1000"),
            ("5E-3", "0.005"),
            ("0.5", "0.5"),
        ] {
            assert_eq!(normal_value(&json!({ "N": text })), Ok(json!({ "N": normal })), "{text}");
        }
        for text in ["NaN", "", ".", "1.2.3", "1e", "--1", &"9".repeat(39), "1e126", "1e-131"] {
            assert!(normal_value(&json!({ "N": text })).is_err(), "{text}");
        }
        assert!(normal_value(&json!({ "N": "9".repeat(38) })).is_ok());
    }

    #[test]
    fn number_keys_sort_as_numbers() {
        let texts =
            ["-1e10", "-12.5", "-12", "-1.25", "-1.2", "-0.001", "0", "0.001", "0.5", "1", "1.2", "9", "10", "1e10"];
        let bytes: Vec<_> = texts.iter().map(|text| ordered(&json!({ "N": text })).unwrap()).collect();
        assert!(bytes.is_sorted(), "{bytes:?}");
    }

    #[test]
    fn invalid_values_are_rejected() {
        for value in [
            json!({ "SS": [] }),
            json!({ "S": 1 }),
            json!({ "X": "a" }),
            json!({ "S": "a", "N": "1" }),
            json!({ "B": "***" }),
            json!({ "NULL": false }),
            json!("a"),
        ] {
            assert!(normal_value(&value).is_err(), "{value}");
        }
        assert!(normal_item(&json!({ "a": { "S": "x".repeat(401 << 10) } })).is_err());
        let nested = json!({ "M": { "a": { "L": [{ "N": "1.0" }, { "NS": ["2.0"] }, { "NULL": true }] } } });
        let normal = json!({ "M": { "a": { "L": [{ "N": "1" }, { "NS": ["2"] }, { "NULL": true }] } } });
        assert_eq!(normal_value(&nested), Ok(normal));
    }
}
