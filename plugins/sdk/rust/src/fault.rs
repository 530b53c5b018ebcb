//! The error type of plugins.

use std::{
    fmt::{self, Display},
    num::{ParseFloatError, ParseIntError, TryFromIntError},
    str::{ParseBoolError, Utf8Error},
};

/// The reason why a row cannot be computed:
///
/// ```
/// use larder_plugin::{Fault, Inputs, Outputs, plugin};
///
/// #[derive(Inputs)]
/// struct Order<'a> {
///     quantity: &'a str,
/// }
///
/// #[derive(Outputs)]
/// struct Parsed {
///     quantity: i64,
/// }
///
/// /// Parses quantities.
/// #[plugin(name = "orders", version = "1.0.0")]
/// fn parse(order: Order<'_>) -> Result<Parsed, Fault> {
///     let quantity: i64 = order.quantity.parse()?;
///     if quantity < 0 {
///         return Err(Fault::new("the quantity is negative"));
///     }
///     Ok(Parsed { quantity })
/// }
/// # fn main() {
/// # use larder_plugin::{rows, testing};
/// # let table = testing::run::<parse>(rows![{ quantity: "2" }, { quantity: "-2" }, { quantity: "two" }]);
/// # assert_eq!(table["quantity"][0], 2_i64);
/// # assert_eq!(table.failed(), [(1, "the quantity is negative"), (2, "invalid digit found in string")]);
/// # }
/// ```
///
/// If a function returns a fault, only its row fails: all outputs of the row are null, and the host gets the message. The
/// other rows of the batch are computed. With `by = "columns"`, a fault fails the whole batch; see
/// [`Column`](crate::Column).
///
/// `?` converts a `String`, a `&str` and the errors of `parse`, `try_from` and `from_utf8` to faults. Convert other errors
/// with `.map_err(Fault::new)?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    message: String,
}

impl Fault {
    /// Creates a fault. The message is for callers and for the log, so it should not contain values of other rows.
    pub fn new(message: impl Display) -> Self {
        Self { message: message.to_string() }
    }

    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { message }
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.message
    }
}

macro_rules! from {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::new(error)
            }
        }
    )*};
}

from!(&str, ParseBoolError, ParseFloatError, ParseIntError, TryFromIntError, Utf8Error);

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(what: &str) -> Result<(), Fault> {
        match what {
            "text" => return Err("a text".into()),
            "string" => Err("a string".to_owned())?,
            "int" => drop("x".parse::<i64>()?),
            "float" => drop("x".parse::<f64>()?),
            "bool" => drop("x".parse::<bool>()?),
            "narrow" => drop(u8::try_from(256_i64)?),
            "utf8" => drop(std::str::from_utf8(&"é".as_bytes()[..1])?),
            _ => drop("x".parse::<std::net::IpAddr>().map_err(Fault::new)?),
        }
        Ok(())
    }

    #[test]
    fn question_mark_keeps_the_message() {
        for (what, message) in [
            ("text", "a text"),
            ("string", "a string"),
            ("int", "invalid digit found in string"),
            ("float", "invalid float literal"),
            ("bool", "provided string was not `true` or `false`"),
            ("narrow", "out of range integral type conversion attempted"),
            ("utf8", "incomplete utf-8 byte sequence from index 0"),
            ("another error", "invalid IP address syntax"),
        ] {
            assert_eq!(convert(what).unwrap_err().message(), message);
        }
    }
}
