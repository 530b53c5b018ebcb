//! Write a derived feature for Larder as a plain Rust function.
//!
//! A plugin declares what it reads and what it computes as two structs, and is a function from one to the other:
//!
//! ```
//! use larder_plugin::{Inputs, Outputs, plugin};
//!
//! #[derive(Inputs)]
//! struct Customer<'a> {
//!     /// Charges of the last full month, in dollars.
//!     monthly_charges: Option<f64>,
//!     /// Full months since the first contract began.
//!     tenure_months: Option<i64>,
//!     /// Month-to-month, One year or Two year.
//!     contract_type: Option<&'a str>,
//! }
//!
//! #[derive(Outputs)]
//! struct Derived {
//!     /// Charges per month of tenure; null in the first month.
//!     charges_per_tenure_month: Option<f64>,
//!     /// Whether the customer can leave within a month.
//!     can_leave: bool,
//! }
//!
//! /// What a customer's charges say beside the length of the contract.
//! #[plugin(name = "customer_ratios", version = "1.0.0")]
//! fn derive(customer: Customer<'_>) -> Derived {
//!     let months = customer.tenure_months.filter(|months| *months > 0);
//!     Derived {
//!         charges_per_tenure_month: customer.monthly_charges.zip(months).map(|(charges, months)| charges / months as f64),
//!         can_leave: customer.contract_type == Some("Month-to-month"),
//!     }
//! }
//!
//! # fn main() {
//! use larder_plugin::{rows, testing};
//!
//! // As the host would run it, in a test:
//! let table = testing::run::<derive>(rows![
//!     { monthly_charges: 60.0, tenure_months: 12, contract_type: "Month-to-month" },
//!     { monthly_charges: 60.0, tenure_months: 0 },
//! ]);
//! assert_eq!(table["charges_per_tenure_month"][0], 5.0);
//! assert!(table["charges_per_tenure_month"][1].is_null());
//! assert_eq!(table["can_leave"][1], false);
//! # }
//! ```
//!
//! * Names of fields are names of features. Their doc comments, and that of the function, are what people who browse
//!   features read; the first paragraph counts.
//! * `Option` is a value that may be null. An input without it is required: in a row that has none, nothing is computed
//!   and every output is null. An output without it is never null otherwise.
//! * Types of inputs are `bool`, `i32`, `i64`, `f32`, `f64`, text (`&str`, `String`), bytes (`&[u8]`, `Vec<u8>`),
//!   [`Timestamp`], and lists of them: slices of numbers (`&[f32]`), [`List`] of anything (`List<'a, &'a str>`), `Vec`.
//!   Outputs are of the same types; lists may be slices, arrays or a `Vec`. A struct that borrows has a lifetime:
//!   `struct Customer<'a>`.
//! * The function may also take `&Context`, for the time of the request, and `&T` for the derived view's `config`, where
//!   `T` is a type that serde deserializes (feature `config`). A view without `config` is like one with `{}`.
//! * It may return an `Option`: none is a row of nulls. It may return a `Result<_, `[`Fault`]`>`: a fault is for a batch
//!   that makes no sense at all; a row that makes none is a null.
//! * With `by = "columns"` the function gets all rows of a batch at once: see [`Column`].
//! * A panic ends the call, with its message and place in the host's log. [`log`] writes there, too.
//!
//! The same inputs have to give the same outputs: training data is made by the same component. There is no clock and no
//! randomness to be had. `HashMap` and `HashSet` seed themselves from addresses of memory here, so that the order of
//! their items depends on what was computed before: take `BTreeMap` where order shows in what you return.

// Its macros name this crate as others do.
extern crate self as larder_plugin;

mod column;
mod frame;
mod input;
mod list;
pub mod log;
mod output;
mod run;
pub mod testing;

pub use larder_plugin_macros::{InputColumns, Inputs, OutputColumns, Outputs, plugin};

pub use self::{
    column::Column,
    list::{Items, List},
    run::{Context, Fault},
};

/// An instant, in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// What the macros expand to. Nothing in here is meant to be written by hand, and all of it may change.
#[doc(hidden)]
#[allow(missing_docs, missing_debug_implementations, reason = "not meant to be read")]
pub mod __private {
    #[cfg(feature = "config")]
    pub use crate::run::config::read as read_config;
    pub use crate::{
        column::{InputColumn, InputColumns, OutputColumn, OutputColumns, fields_by_columns, run_by_columns},
        frame::{Batch, Frame, Heads},
        input::{Input, Inputs, open},
        output::{Output, Outputs, Writer},
        run::{FieldSpec, Fields, Instance, Plugin, describe, fields_by_row, no_config, run_by_row},
    };

    /// Says what is missing where a plugin takes a configuration.
    #[cfg(not(feature = "config"))]
    #[macro_export]
    #[doc(hidden)]
    macro_rules! __needs_config {
        () => {
            compile_error!(
                "a plugin that takes a configuration needs larder-plugin's feature `config`; in Cargo.toml: \
                 larder-plugin = { path = \"larder-plugin\", features = [\"config\"] }"
            );
        };
    }
    /// Nothing is missing.
    #[cfg(feature = "config")]
    #[macro_export]
    #[doc(hidden)]
    macro_rules! __needs_config {
        () => {};
    }

    pub mod bindings {
        //! What `wit-bindgen` makes of the contract.

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
