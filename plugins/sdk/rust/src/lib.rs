//! Write a derived feature for Larder as a plain Rust function.
//!
//! A plugin declares what it reads and what it computes as two structs, and a function from one to the other:
//!
//! ```
//! use larder_plugin::{Inputs, Outputs, plugin};
//!
//! /// What is known of a customer.
//! #[derive(Inputs)]
//! struct Customer {
//!     /// Charges of the last full month, in dollars.
//!     monthly_charges: Option<f64>,
//!     /// Full months since the first contract began.
//!     tenure_months: Option<i64>,
//! }
//!
//! #[derive(Debug, PartialEq, Outputs)]
//! struct Derived {
//!     /// Charges per month of tenure; null in the first month.
//!     charges_per_tenure_month: Option<f64>,
//! }
//!
//! /// What a customer's charges say beside the length of the contract.
//! #[plugin(name = "customer_ratios", version = "1.0.0")]
//! fn derive(customer: Customer) -> Derived {
//!     let months = customer.tenure_months.filter(|months| *months > 0);
//!     let ratio = customer.monthly_charges.zip(months).map(|(charges, months)| charges / months as f64);
//!     Derived { charges_per_tenure_month: ratio }
//! }
//!
//! # fn main() {
//! let derived = derive(Customer { monthly_charges: Some(60.0), tenure_months: Some(12) });
//! assert_eq!(derived, Derived { charges_per_tenure_month: Some(5.0) });
//! # }
//! ```
//!
//! * Names of fields are names of features, their doc comments are what people who browse features read.
//! * `Option` is a value that may be null. An input without it is required: in a row that has none, nothing is computed
//!   and every output is null. An output without it is never null otherwise.
//! * Types are `bool`, `i32`, `i64`, `f32`, `f64`, text (`&str` in, `&str` or `String` out), bytes (`&[u8]`, `Vec<u8>`),
//!   [`Timestamp`], and lists: [`List`] in, `Vec` out. Structs that borrow have a lifetime: `struct Customer<'a>`.
//! * The function may also take `&Context`, for the time of the request, and `&T` for the derived view's `config`, where
//!   `T` is a type that serde deserializes (feature `config`). It may return `Result<_, Fault>`: a fault is for a batch
//!   that makes no sense; a row that makes none is a null.
//! * With `by = "batch"` the function takes a `Vec` of rows and returns a `Vec` of as many.
//! * A panic ends the call, with its message in the host's log. So does [`log`] what it is told.
//!
//! The same inputs have to give the same outputs: training data is made by the same component. There is no clock and no
//! randomness to be had, and `HashMap` seeds itself from addresses here, so that the order of its items may change from
//! call to call: take a `BTreeMap` where order shows in what you return.

// Its macros name this crate as others do.
extern crate self as larder_plugin;

mod input;
mod list;
pub mod log;
mod output;
mod run;
pub mod testing;

pub use larder_plugin_macros::{Inputs, Outputs, plugin};

pub use self::{
    list::{Items, List},
    output::Bytes,
    run::{Context, Fault},
};

/// An instant, in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// What the macros expand to. Nothing in here is meant to be written by hand, and all of it may change.
#[doc(hidden)]
pub mod __private {
    pub use crate::{
        input::{Input, Inputs, open},
        output::{Builder, Output, Outputs},
        run::{FieldSpec, Plugin, configure, describe, transform},
    };
    #[cfg(feature = "config")]
    pub use serde_json;
    pub use std::sync::OnceLock;

    pub mod bindings {
        //! What `wit-bindgen` makes of the contract.
        #![allow(missing_docs, reason = "generated; the WIT has the docs")]

        wit_bindgen::generate!({
            path: "wit",
            world: "derived-features",
            pub_export_macro: true,
            export_macro_name: "export_component",
            default_bindings_module: "larder_plugin::__private::bindings",
            runtime_path: "larder_plugin::__private::wit_bindgen::rt",
            generate_all,
        });
    }
    pub use bindings::larder::transform::{host, types};
    pub use wit_bindgen;
}
