//! Tests with expected values from Python 3.11 and numpy 2.

use super::*;

#[test]
fn floats_print_like_python() {
    for (value, text) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (0.0001, "0.0001"),
        (0.000_012_5, "1.25e-05"),
        (1e-7, "1e-07"),
        (123_456.789, "123456.789"),
        (1e15, "1000000000000000.0"),
        (9_007_199_254_740_993.0, "9007199254740992.0"),
        (1e16, "1e+16"),
        (1.2345678901234568e16, "1.2345678901234568e+16"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
    ] {
        assert_eq!(float_text(value), text);
    }
    assert_eq!(single_text(0.1), "0.1");
    assert_eq!(single_text(16_777_216.0), "16777216.0");
    assert_eq!(single_text(1e20), "1e+20");
}

#[test]
fn decimals_print_like_python() {
    for (unscaled, scale, text) in [
        ("150", 2, "1.50"),
        ("-300", 2, "-3.00"),
        ("7", 0, "7"),
        ("5", 3, "0.005"),
        ("0", 2, "0.00"),
        ("1", 6, "0.000001"),
        ("1", 7, "1E-7"),
        ("-125", 10, "-1.25E-8"),
        ("0", 8, "0E-8"),
        ("12", -2, "1.2E+3"),
        ("1267650600228229401496703205376", 0, "1267650600228229401496703205376"),
    ] {
        assert_eq!(decimal_text(unscaled, scale), text);
    }
}

#[test]
fn int_parses_like_python() {
    for (text, expected) in [
        ("1", Ok(1)),
        (" +1_001 ", Ok(1_001)),
        ("-9223372036854775808", Ok(i64::MIN)),
        ("007", Ok(7)),
        ("9223372036854775808", Err(IntError::Range)),
        ("1__0", Err(IntError::Literal)),
        ("_1", Err(IntError::Literal)),
        ("", Err(IntError::Literal)),
        ("1.0", Err(IntError::Literal)),
        ("9007199254740993.0", Err(IntError::Literal)),
        ("1E+2", Err(IntError::Literal)),
        ("- 1", Err(IntError::Literal)),
    ] {
        assert_eq!(int(text), expected, "{text}");
    }
}

#[test]
fn float_parses_like_python() {
    for (text, expected) in
        [("1.5", 1.5), (" 1_0.5 ", 10.5), ("-1e3", -1_000.0), (".5", 0.5), ("5.", 5.0), ("Infinity", f64::INFINITY)]
    {
        assert_eq!(float(text), Some(expected), "{text}");
    }
    assert!(float("NaN").is_some_and(f64::is_nan));
    for text in ["", "abc", "1_", "_1", "1._5", "1,5", "0x10"] {
        assert_eq!(float(text), None, "{text}");
    }
}

#[test]
fn decimals_are_truncated_exactly() {
    for (text, expected) in [
        ("9007199254740993.0", Ok((9_007_199_254_740_993, false))),
        ("1E+2", Ok((100, false))),
        ("1.5", Ok((1, true))),
        ("-1.5", Ok((-1, true))),
        ("0.9", Ok((0, true))),
        ("0.00", Ok((0, false))),
        ("00012", Ok((12, false))),
        ("-9223372036854775808", Ok((i64::MIN, false))),
        ("9223372036854775808", Err(IntError::Range)),
        ("1E+39", Err(IntError::Range)),
        ("1E+999999999999", Err(IntError::Range)),
        ("1E-999999999999", Ok((0, true))),
        ("abc", Err(IntError::Literal)),
        ("1E", Err(IntError::Literal)),
        ("1.2.3", Err(IntError::Literal)),
    ] {
        assert_eq!(whole_of_decimal(text), expected, "{text}");
    }
}

#[test]
fn decimal_exponents_are_limited_like_python() {
    for text in [
        "1e999999999999999999",
        "10e999999999999999998",
        "0e999999999999999999",
        "00e999999999999999999",
        "1e-1999999999999999997",
        "1.5e-1999999999999999996",
        "0.5e1000000000000000000",
        "0.05E+1000000000000000001",
        "0.0e1000000000000000000",
        "0e-1999999999999999997",
    ] {
        assert!(is_decimal(text), "{text}");
    }
    for text in [
        "1e1000000000000000000",
        "10e999999999999999999",
        "0e1000000000000000000",
        "1e-1999999999999999998",
        "1.5e-1999999999999999997",
        "1e99999999999999999999999",
        "1e999999999999999999999999999999999999999999",
        "100e-1999999999999999999",
        "0e-1999999999999999998",
    ] {
        assert!(!is_decimal(text), "{text}");
    }
}

#[test]
fn decimal_and_uuid_checks_equal_python() {
    for text in ["1", "-1.50", "+1e5", ".5", "5.", " 1_000.5 ", "NaN", "-Infinity", "sNaN12", "0E-8"] {
        assert!(is_decimal(text), "{text}");
    }
    for text in ["", "abc", "1,5", "1e", "--1", "infinit", "NaNx", "0x1"] {
        assert!(!is_decimal(text), "{text}");
    }
    let uuid = "123e4567-e89b-42d3-a456-426614174000";
    for text in
        [uuid.to_owned(), uuid.to_uppercase(), uuid.replace('-', ""), format!("{{{uuid}}}"), format!("urn:uuid:{uuid}")]
    {
        assert!(is_uuid(&text), "{text}");
    }
    for text in ["", "a", "123e4567-e89b-42d3-a456-42661417400", "123e4567-e89b-42d3-a456-42661417400g"] {
        assert!(!is_uuid(text), "{text}");
    }
}

#[test]
fn json_text_equals_json_dumps() {
    let cell = Cell::from_json(
        r#"{"b": [1, 1.5, null, true], "a": {"é\n\"": "😀\u0007"}, "n": 18446744073709551617, "e": [], "f": 1e16}"#,
    );
    let text = r#"{"b": [1, 1.5, null, true], "a": {"\u00e9\n\"": "\ud83d\ude00\u0007"}, "n": 18446744073709551617, "e": [], "f": 1e+16}"#;
    assert_eq!(json_text(&cell.unwrap()).as_deref(), Some(text));
    assert_eq!(json_text(&Cell::Float(f64::INFINITY)), None);
    assert_eq!(json_text(&Cell::List(vec![Cell::Bytes(vec![1])])), None);
}

#[test]
fn bytes_print_like_python() {
    assert_eq!(bytes_text(b"\x00\xffa\\'\n"), r#"b"\x00\xffa\\'\n""#);
    assert_eq!(bytes_text(b"ab"), "b'ab'");
    assert_eq!(bytes_text(b"'\""), r#"b'\'"'"#);
}
