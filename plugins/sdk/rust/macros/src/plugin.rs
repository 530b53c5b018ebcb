//! `#[plugin]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{
    Error, FnArg, ItemFn, LitStr, Meta, Result, ReturnType, Token, Type, parse::Parser, punctuated::Punctuated,
    spanned::Spanned, visit_mut::VisitMut,
};

use crate::fields::{Relive, doc};

/// What stands in the attribute.
struct Words {
    name: String,
    version: String,
    by_batch: bool,
}

/// What a function takes and returns.
struct Shape {
    /// In the function's order.
    arguments: Vec<Argument>,
    row: Type,
    config: Option<Type>,
    output: Type,
    fallible: bool,
}

enum Argument {
    Context,
    Config,
    Rows,
}

pub(crate) fn plugin(attribute: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let words = Words::read(attribute)?;
    let shape = Shape::of(function, words.by_batch)?;
    let Words { name, version, by_batch } = words;
    let Shape { arguments, row, config, output, fallible } = shape;
    let (call, doc) = (&function.sig.ident, doc(&function.attrs));
    let arguments = arguments.iter().map(|argument| match argument {
        Argument::Context => quote!(context),
        Argument::Config => quote!(config),
        Argument::Rows => quote!(rows),
    });
    let (config_type, read_config) = match &config {
        None => (
            quote!(()),
            quote!({
                let _ = json;
                ::core::result::Result::Ok(())
            }),
        ),
        Some(config) => (
            quote!(#config),
            // A view that says nothing has the same configuration as one that says nothing of any field.
            quote!(
                ::larder_plugin::__private::serde_json::from_str(if json == "null" { "{}" } else { json })
                    .map_err(|error| ::larder_plugin::Fault::bad_config(::std::string::ToString::to_string(&error)))
            ),
        ),
    };
    let raise = if fallible { quote!(?) } else { quote!() };
    let compute = if by_batch {
        quote! {
            let mut present = ::std::vec::Vec::with_capacity(count);
            let mut rows = ::std::vec::Vec::with_capacity(count);
            for row in 0..count {
                let read = <#row as ::larder_plugin::__private::Inputs<'_>>::read(&readers, row);
                present.push(read.is_some());
                rows.extend(read);
            }
            let wanted = rows.len();
            let computed: ::std::vec::Vec<#output> = #call(#(#arguments),*) #raise;
            if computed.len() != wanted {
                return ::core::result::Result::Err(::larder_plugin::Fault::internal(
                    ::std::format!("the function returned {} rows for {wanted}", computed.len()),
                ));
            }
            let mut computed = computed.into_iter();
            for present in present {
                match if present { computed.next() } else { ::core::option::Option::None } {
                    ::core::option::Option::Some(row) => ::larder_plugin::__private::Outputs::push(row, outputs),
                    ::core::option::Option::None => outputs.iter_mut().for_each(|column| column.push_null()),
                }
            }
        }
    } else {
        quote! {
            for row in 0..count {
                match <#row as ::larder_plugin::__private::Inputs<'_>>::read(&readers, row) {
                    ::core::option::Option::Some(rows) => {
                        let computed: #output = #call(#(#arguments),*) #raise;
                        ::larder_plugin::__private::Outputs::push(computed, outputs);
                    }
                    ::core::option::Option::None => outputs.iter_mut().for_each(|column| column.push_null()),
                }
            }
        }
    };
    let (mut static_row, mut static_output) = (row.clone(), output.clone());
    Relive("'static").visit_type_mut(&mut static_row);
    Relive("'static").visit_type_mut(&mut static_output);
    Ok(quote! {
        #function

        /// The plugin as the host, and [`larder_plugin::testing`], see it.
        #[derive(Debug)]
        pub struct Plugin;

        impl ::larder_plugin::__private::Plugin for Plugin {
            type Config = #config_type;
            const NAME: &'static str = #name;
            const VERSION: &'static str = #version;
            const DOC: &'static str = #doc;
            const INPUTS: &'static [::larder_plugin::__private::FieldSpec] =
                <#static_row as ::larder_plugin::__private::Inputs<'static>>::FIELDS;
            const OUTPUTS: &'static [::larder_plugin::__private::FieldSpec] =
                <#static_output as ::larder_plugin::__private::Outputs>::FIELDS;

            fn configure(json: &str) -> ::core::result::Result<Self::Config, ::larder_plugin::Fault> {
                #read_config
            }

            #[allow(unused_variables, reason = "a function need not want everything")]
            fn transform(
                config: &Self::Config,
                context: &::larder_plugin::Context,
                count: usize,
                inputs: &[::larder_plugin::__private::types::Column],
                outputs: &mut [::larder_plugin::__private::Builder],
            ) -> ::core::result::Result<(), ::larder_plugin::Fault> {
                let readers = <#row as ::larder_plugin::__private::Inputs<'_>>::open(inputs)?;
                #compute
                ::core::result::Result::Ok(())
            }
        }

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use ::larder_plugin::__private::{OnceLock, bindings, types};

            static CONFIG: OnceLock<<Plugin as ::larder_plugin::__private::Plugin>::Config> = OnceLock::new();

            struct Guest;

            impl bindings::Guest for Guest {
                fn describe() -> types::Signature {
                    ::larder_plugin::__private::describe::<Plugin>()
                }

                fn configure(config: ::std::string::String) -> ::core::result::Result<(), types::Fault> {
                    let config = ::larder_plugin::__private::configure::<Plugin>(&config)?;
                    // The host configures an instance once.
                    let _ = CONFIG.set(config);
                    ::core::result::Result::Ok(())
                }

                fn transform(
                    context: types::Context,
                    rows: u32,
                    inputs: ::std::vec::Vec<types::Column>,
                ) -> ::core::result::Result<::std::vec::Vec<types::Column>, types::Fault> {
                    let context = ::larder_plugin::Context { as_of: ::larder_plugin::Timestamp(context.as_of) };
                    let config = CONFIG.get().ok_or_else(|| {
                        types::Fault::Internal(::std::string::String::from("transform was called before configure"))
                    })?;
                    let outputs = ::larder_plugin::__private::transform::<Plugin>(config, &context, rows as usize, &inputs)?;
                    ::core::result::Result::Ok(outputs)
                }
            }

            bindings::export_component!(Guest with_types_in ::larder_plugin::__private::bindings);
        };
    })
}

// === impl Words ===

impl Words {
    fn read(attribute: TokenStream) -> Result<Self> {
        let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(attribute)?;
        let (mut name, mut version, mut by_batch) = (None, None, false);
        for meta in metas {
            let Meta::NameValue(meta) = &meta else {
                return Err(Error::new(meta.span(), "expected name = \"…\", version = \"…\" or by = \"…\""));
            };
            let value = &meta.value;
            let text: LitStr =
                syn::parse2(quote!(#value)).map_err(|_| Error::new(value.span(), "expected a text in quotes"))?;
            if meta.path.is_ident("name") {
                check_name(&text)?;
                name = Some(text.value());
            } else if meta.path.is_ident("version") {
                check_version(&text)?;
                version = Some(text.value());
            } else if meta.path.is_ident("by") {
                by_batch = match text.value().as_str() {
                    "row" => false,
                    "batch" => true,
                    _ => return Err(Error::new(text.span(), "expected \"row\" or \"batch\"")),
                };
            } else {
                return Err(Error::new(meta.path.span(), "expected name, version or by"));
            }
        }
        let missing = |what: &str| Error::new(Span::call_site(), format!("{what} = \"…\" is missing"));
        Ok(Self {
            name: name.ok_or_else(|| missing("name"))?,
            version: version.ok_or_else(|| missing("version"))?,
            by_batch,
        })
    }
}

/// The contract's rule for names.
fn check_name(text: &LitStr) -> Result<()> {
    let name = text.value();
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(Error::new(text.span(), "a plugin's name is a letter or '_', then letters, digits and '_'"))
}

fn check_version(text: &LitStr) -> Result<()> {
    let version = text.value();
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(is_number) {
        return Ok(());
    }
    Err(Error::new(text.span(), "a version is MAJOR.MINOR.PATCH, for example 1.0.0"))
}

// === impl Shape ===

impl Shape {
    fn of(function: &ItemFn, by_batch: bool) -> Result<Self> {
        let (mut arguments, mut rows, mut config) = (Vec::new(), None, None);
        for input in &function.sig.inputs {
            let FnArg::Typed(input) = input else {
                return Err(Error::new(input.span(), "a plugin is a function without self"));
            };
            match &*input.ty {
                Type::Reference(reference) if is_named(&reference.elem, "Context") => arguments.push(Argument::Context),
                Type::Reference(reference) => {
                    if config.replace((*reference.elem).clone()).is_some() {
                        return Err(Error::new(input.span(), "there is one configuration"));
                    }
                    arguments.push(Argument::Config);
                }
                of => {
                    if rows.replace(of.clone()).is_some() {
                        return Err(Error::new(input.span(), "the inputs are one struct"));
                    }
                    arguments.push(Argument::Rows);
                }
            }
        }
        let missing = "a plugin takes its inputs: a struct with #[derive(Inputs)], by value";
        let rows = rows.ok_or_else(|| Error::new(function.sig.span(), missing))?;
        let missing = "a plugin returns its outputs: a struct with #[derive(Outputs)]";
        let ReturnType::Type(_, returned) = &function.sig.output else {
            return Err(Error::new(function.sig.span(), missing));
        };
        let inner = argument(returned, "Result");
        let (fallible, output) = (inner.is_some(), inner.unwrap_or_else(|| (**returned).clone()));
        let unwrapped = |of: &Type, what: &str| {
            let error = || Error::new(of.span(), format!("by = \"batch\": {what} a Vec of rows"));
            argument(of, "Vec").ok_or_else(error)
        };
        let (mut row, mut output) = if by_batch {
            (unwrapped(&rows, "the inputs are")?, unwrapped(&output, "the result is")?)
        } else {
            (rows, output)
        };
        Relive("'_").visit_type_mut(&mut row);
        Relive("'_").visit_type_mut(&mut output);
        Ok(Self { arguments, row, config, output, fallible })
    }
}

fn is_named(of: &Type, name: &str) -> bool {
    let Type::Path(path) = of else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == name)
}

/// The first type argument of a type of this name.
fn argument(of: &Type, name: &str) -> Option<Type> {
    let Type::Path(path) = of else { return None };
    let segment = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(of) => Some(of.clone()),
        _ => None,
    })
}
