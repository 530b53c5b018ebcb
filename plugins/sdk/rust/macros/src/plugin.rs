//! The attribute macro `#[plugin]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Error, Expr, ExprLit, FnArg, GenericParam, ItemFn, Lit, LitStr, Meta, Result, ReturnType, Token, Type,
    parse::Parser, punctuated::Punctuated, spanned::Spanned,
};

use crate::fields::doc;

/// The arguments of the attribute.
struct Attribute {
    name: String,
    version: String,
    by_columns: bool,
}

/// The parameters of a function.
struct Shape {
    /// In the order of the function's parameters.
    arguments: Vec<Argument>,
    config: Option<Type>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    Context,
    Config,
    Inputs,
}

/// Returns the code that follows the function. The function itself is not changed.
pub(crate) fn plugin(attribute: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let Attribute { name, version, by_columns } = Attribute::read(attribute)?;
    let Shape { arguments, config } = Shape::of(function, by_columns)?;
    let reads_time = arguments.contains(&Argument::Context);
    let (call, visible, doc) = (&function.sig.ident, &function.vis, doc(&function.attrs));
    let arguments = arguments.iter().map(|argument| match argument {
        Argument::Context => quote!(context),
        Argument::Config => quote!(config),
        Argument::Inputs => quote!(inputs),
    });
    let (config_type, read_config, needs) = match &config {
        None => (quote!(()), quote!(::larder_plugin::__private::no_config(json)), quote!()),
        Some(config) => (
            quote!(#config),
            quote_spanned!(config.span()=> ::larder_plugin::__private::read_config::<#config>(json)),
            quote!(::larder_plugin::__needs_config!();),
        ),
    };
    let (fields_by, run_by) = if by_columns {
        (quote!(fields_by_columns), quote!(run_by_columns))
    } else {
        (quote!(fields_by_row), quote!(run_by_row))
    };
    // The compiler infers the types of the inputs and outputs, so the macro need not know their names.
    let function = quote_spanned!(function.sig.span()=> |context, config, inputs| #call(#(#arguments),*));
    Ok(quote! {
        #needs

        /// The plugin, for the host and for `larder_plugin::testing`.
        #[allow(non_camel_case_types, reason = "it has the function's name")]
        #[derive(Clone, Copy, Debug)]
        #visible enum #call {}

        #[allow(unused_variables, reason = "a function need not use every argument")]
        const _: () = {
            impl ::larder_plugin::__private::Plugin for #call {
                type Config = #config_type;
                const NAME: &'static str = #name;
                const VERSION: &'static str = #version;
                const DOC: &'static str = #doc;
                const READS_TIME: bool = #reads_time;

                fn fields() -> ::larder_plugin::__private::Fields {
                    ::larder_plugin::__private::#fields_by::<Self, _, _>(#function)
                }

                fn configure(json: &str) -> ::core::result::Result<Self::Config, ::larder_plugin::Fault> {
                    #read_config
                }

                fn transform(
                    config: &Self::Config,
                    rows: usize,
                    inputs: &[u64],
                ) -> ::core::result::Result<::larder_plugin::__private::types::Batch, ::larder_plugin::Fault> {
                    ::larder_plugin::__private::#run_by::<Self, _, _>(config, rows, inputs, #function)
                }
            }

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                use ::larder_plugin::__private::{Instance, bindings, types};

                ::std::thread_local! {
                    static INSTANCE: Instance<<#call as ::larder_plugin::__private::Plugin>::Config> =
                        const { Instance::new() };
                }

                struct Guest;

                impl bindings::Guest for Guest {
                    fn describe() -> types::Signature {
                        ::larder_plugin::__private::describe::<#call>()
                    }

                    fn configure(config: ::std::string::String) -> ::core::result::Result<(), ::std::string::String> {
                        INSTANCE.with(|instance| instance.configure::<#call>(&config))
                    }

                    fn transform(
                        rows: u32,
                        inputs: ::std::vec::Vec<u8>,
                    ) -> ::core::result::Result<types::Batch, ::std::string::String> {
                        INSTANCE.with(|instance| instance.transform::<#call>(rows, &inputs))
                    }
                }

                bindings::export_component!(Guest with_types_in ::larder_plugin::__private::bindings);
            };
        };
    })
}

/// Returns the attribute that asks the compiler to inline the function into the loop over rows, which makes a loop of
/// small functions a quarter faster. Returns nothing if the function has such an attribute.
pub(crate) fn inline(function: &ItemFn) -> TokenStream {
    let is_given = function.attrs.iter().any(|attribute| attribute.path().is_ident("inline"));
    if is_given { quote!() } else { quote!(#[inline]) }
}

// === impl Attribute ===

impl Attribute {
    fn read(attribute: TokenStream) -> Result<Self> {
        let (mut name, mut version, mut by_columns) = (None, None, false);
        for meta in Punctuated::<Meta, Token![,]>::parse_terminated.parse2(attribute)? {
            let Meta::NameValue(meta) = &meta else {
                return Err(Error::new(meta.span(), "expected name = \"…\", version = \"…\" or by = \"…\""));
            };
            let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value else {
                return Err(Error::new(meta.value.span(), "expected a string literal"));
            };
            if meta.path.is_ident("name") {
                check_name(text)?;
                name = Some(text.value());
            } else if meta.path.is_ident("version") {
                check_version(text)?;
                version = Some(text.value());
            } else if meta.path.is_ident("by") {
                by_columns = match text.value().as_str() {
                    "row" => false,
                    "columns" => true,
                    _ => return Err(Error::new(text.span(), "expected \"row\" or \"columns\"")),
                };
            } else {
                return Err(Error::new(
                    meta.path.span(),
                    "unknown argument. hint: the arguments are name, version and by",
                ));
            }
        }
        let missing = |what: &str| {
            Error::new(
                Span::call_site(),
                format!("{what} = \"…\" is missing. hint: write #[plugin(name = \"ratio\", version = \"1.0.0\")]"),
            )
        };
        Ok(Self {
            name: name.ok_or_else(|| missing("name"))?,
            version: version.ok_or_else(|| missing("version"))?,
            by_columns,
        })
    }
}

/// Checks a name by the contract's rule.
fn check_name(text: &LitStr) -> Result<()> {
    let name = text.value();
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(Error::new(text.span(), "a plugin's name must be a letter or '_', followed by letters, digits and '_'"))
}

fn check_version(text: &LitStr) -> Result<()> {
    let version = text.value();
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(is_number) {
        return Ok(());
    }
    Err(Error::new(text.span(), "a version must be MAJOR.MINOR.PATCH, for example 1.0.0"))
}

// === impl Shape ===

impl Shape {
    fn of(function: &ItemFn, by_columns: bool) -> Result<Self> {
        let signature = &function.sig;
        if let Some(asynchronous) = &signature.asyncness {
            return Err(Error::new(
                asynchronous.span(),
                "a plugin cannot be async, because it has one thread. hint: remove `async`",
            ));
        }
        if let Some(parameter) =
            signature.generics.params.iter().find(|parameter| !matches!(parameter, GenericParam::Lifetime(_)))
        {
            return Err(Error::new(
                parameter.span(),
                "a plugin can only have lifetime parameters: the host cannot choose types or constants",
            ));
        }
        if matches!(signature.output, ReturnType::Default) {
            let missing = "a plugin must return its outputs: a struct with #[derive(Outputs)]";
            return Err(Error::new(signature.ident.span(), missing));
        }
        let (mut arguments, mut config) = (Vec::new(), None);
        for input in &signature.inputs {
            let FnArg::Typed(input) = input else {
                return Err(Error::new(input.span(), "a plugin cannot have a self parameter"));
            };
            let argument = match &*input.ty {
                Type::Reference(reference) => match is_slice_of_contexts(&reference.elem) {
                    Some(is_slice) if is_slice == by_columns => Argument::Context,
                    Some(true) => return Err(Error::new(input.span(), "expected `&Context`, the context of the row")),
                    Some(false) => {
                        let wrong = "with by = \"columns\", expected `&[Context]`, which has a context for each row";
                        return Err(Error::new(input.span(), wrong));
                    }
                    None => {
                        config = Some((*reference.elem).clone());
                        Argument::Config
                    }
                },
                _ => Argument::Inputs,
            };
            if arguments.contains(&argument) {
                return Err(Error::new(input.span(), argument.twice()));
            }
            arguments.push(argument);
        }
        if !arguments.contains(&Argument::Inputs) {
            let missing = "a plugin must take its inputs: a struct with #[derive(Inputs)], by value";
            return Err(Error::new(signature.ident.span(), missing));
        }
        Ok(Self { arguments, config })
    }
}

/// Returns whether the type is a slice of contexts. Returns `None` if it is neither a context nor a slice of contexts.
fn is_slice_of_contexts(of: &Type) -> Option<bool> {
    match of {
        Type::Slice(slice) => is_named(&slice.elem, "Context").then_some(true),
        _ => is_named(of, "Context").then_some(false),
    }
}

fn is_named(of: &Type, name: &str) -> bool {
    let Type::Path(path) = of else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == name)
}

// === impl Argument ===

impl Argument {
    /// Returns the message of the error that there are two such parameters.
    fn twice(self) -> &'static str {
        match self {
            Self::Context => "a plugin can have only one context parameter",
            Self::Config => "a plugin can have only one configuration parameter; pass the inputs by value",
            Self::Inputs => "the inputs must be one struct; pass context and configuration by reference",
        }
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn error(attribute: TokenStream, function: ItemFn) -> String {
        plugin(attribute, &function).unwrap_err().to_string()
    }

    #[test]
    fn wrong_attribute_error_names_the_reason() {
        let function: ItemFn = parse_quote!(
            fn f(row: Row) -> Out {}
        );
        let of = |attribute| error(attribute, function.clone());
        assert!(of(quote!(version = "1.0.0")).contains("name = \"…\" is missing"));
        assert!(of(quote!(name = "f")).contains("version = \"…\" is missing"));
        assert!(of(quote!(name = "a-b", version = "1.0.0")).contains("letters, digits"));
        assert!(of(quote!(name = "f", version = "1")).contains("MAJOR.MINOR.PATCH"));
        assert!(of(quote!(name = "f", version = "1.0.x")).contains("MAJOR.MINOR.PATCH"));
        assert!(of(quote!(name = "f", version = "1.0.0", by = "batch")).contains("\"row\" or \"columns\""));
        assert!(of(quote!(name = "f", version = 1)).contains("string literal"));
        assert!(of(quote!(nome = "f")).contains("the arguments are name, version and by"));
        assert!(plugin(quote!(name = "f", version = "1.0.0-rc.1"), &function).is_ok());
    }

    #[test]
    fn unsupported_function_error_names_the_reason() {
        let of = |function| error(quote!(name = "f", version = "1.0.0"), function);
        assert!(
            of(parse_quote!(
                fn f() -> Out {}
            ))
            .contains("must take its inputs")
        );
        assert!(
            of(parse_quote!(
                fn f(row: Row) {}
            ))
            .contains("must return its outputs")
        );
        assert!(
            of(parse_quote!(
                fn f(row: Row, other: Row) -> Out {}
            ))
            .contains("one struct")
        );
        assert!(
            of(parse_quote!(
                fn f(a: &A, b: &B, row: Row) -> Out {}
            ))
            .contains("one configuration parameter")
        );
        assert!(
            of(parse_quote!(
                fn f(a: &Context, b: &Context, row: Row) -> Out {}
            ))
            .contains("one context parameter")
        );
        assert!(
            of(parse_quote!(
                async fn f(row: Row) -> Out {}
            ))
            .contains("cannot be async")
        );
        assert!(
            of(parse_quote!(
                fn f<T>(row: T) -> Out {}
            ))
            .contains("lifetime parameters")
        );
    }

    #[test]
    fn context_matches_rows_or_columns() {
        let one: ItemFn = parse_quote!(
            fn f(context: &Context, row: Row) -> Out {}
        );
        let all: ItemFn = parse_quote!(
            fn f(contexts: &[Context], rows: Rows) -> Out {}
        );
        for (function, by_columns) in [(&one, false), (&all, true)] {
            assert_eq!(Shape::of(function, by_columns).unwrap().arguments, [Argument::Context, Argument::Inputs]);
        }
        let wrong = |function, by_columns| Shape::of(function, by_columns).err().unwrap().to_string();
        assert_eq!(wrong(&all, false), "expected `&Context`, the context of the row");
        assert!(wrong(&one, true).contains("expected `&[Context]`"));
    }

    #[test]
    fn only_function_with_context_reads_time() {
        let made = |function: ItemFn| plugin(quote!(name = "f", version = "1.0.0"), &function).unwrap().to_string();
        let reads_time = |value: bool| format!("const READS_TIME : bool = {value} ;");
        assert!(
            made(parse_quote!(
                fn f(row: Row) -> Out {}
            ))
            .contains(&reads_time(false))
        );
        assert!(
            made(parse_quote!(
                fn f(row: Row, context: &Context) -> Out {}
            ))
            .contains(&reads_time(true))
        );
    }

    #[test]
    fn function_has_one_inline_attribute() {
        let plain: ItemFn = parse_quote!(
            fn f(row: Row) -> Out {}
        );
        let never: ItemFn = parse_quote!(
            #[inline(never)]
            fn f(row: Row) -> Out {}
        );
        assert_eq!(inline(&plain).to_string(), quote!(#[inline]).to_string());
        assert!(inline(&never).is_empty());
    }

    #[test]
    fn parameters_may_be_in_any_order() {
        let function: ItemFn = parse_quote!(
            fn f(row: Row<'_>, config: &Limits, context: &larder_plugin::Context) -> Out {}
        );
        let shape = Shape::of(&function, false).unwrap();
        assert_eq!(shape.arguments, [Argument::Inputs, Argument::Config, Argument::Context]);
        assert!(shape.config.is_some());
    }
}
