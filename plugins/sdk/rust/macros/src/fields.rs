//! The derive macros, which make the fields of a struct the inputs or outputs of a plugin.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Fields, Ident, Index, Lifetime, Lit, Meta, Result, Type,
    spanned::Spanned,
};

/// A field of the struct.
struct Field {
    ident: Ident,
    /// The feature's name.
    name: String,
    doc: String,
    of: Type,
    index: Index,
}

pub(crate) fn inputs(item: &DeriveInput) -> Result<TokenStream> {
    let (fields, lifetime) = (fields(item)?, lifetime(item)?);
    let (name, (before, after)) = (&item.ident, generics(item, &lifetime));
    let specs = fields.iter().map(|Field { name, doc, of, .. }| {
        quote_spanned! {of.span()=>
            ::larder_plugin::__private::FieldSpec {
                name: #name,
                column_type: <#of as ::larder_plugin::__private::Input<#lifetime>>::TYPE,
                nullable: !<#of as ::larder_plugin::__private::Input<#lifetime>>::REQUIRED,
                doc: #doc,
            }
        }
    });
    let readers = fields.iter().map(
        |Field { of, .. }| quote_spanned!(of.span()=> <#of as ::larder_plugin::__private::Input<#lifetime>>::Reader),
    );
    let opened = fields.iter().map(|Field { of, index, .. }| {
        quote_spanned!(of.span()=> ::larder_plugin::__private::open::<#of>(frame, #index, Self::FIELDS)?)
    });
    let read = fields.iter().map(|Field { ident, of, index, .. }| {
        quote_spanned! {of.span()=>
            #ident: <#of as ::larder_plugin::__private::Input<#lifetime>>::get(&readers.#index, row)?
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #before ::larder_plugin::__private::Inputs<#lifetime> for #name #after {
            const FIELDS: &'static [::larder_plugin::__private::FieldSpec] = &[#(#specs),*];
            type Readers = (#(#readers,)*);

            #[allow(unused_variables, clippy::unused_unit, reason = "a struct may have no field")]
            fn open(
                frame: &mut ::larder_plugin::__private::Frame<#lifetime>,
            ) -> ::core::result::Result<Self::Readers, ::larder_plugin::Fault> {
                ::core::result::Result::Ok((#(#opened,)*))
            }

            #[inline]
            #[allow(unused_variables, reason = "a struct may have no field")]
            fn read(readers: &Self::Readers, row: usize) -> ::core::option::Option<Self> {
                ::core::option::Option::Some(Self { #(#read,)* })
            }
        }
    })
}

pub(crate) fn outputs(item: &DeriveInput) -> Result<TokenStream> {
    let (name, fields) = (&item.ident, fields(item)?);
    some(&fields, name)?;
    let (before, after, condition) = item.generics.split_for_impl();
    let specs = fields.iter().map(|field| output_spec(field, "Output"));
    let writers = fields.iter().map(|Field { of, .. }| {
        quote_spanned! {of.span()=>
            ::larder_plugin::__private::Writer<'larder, <#of as ::larder_plugin::__private::Output>::Sink>
        }
    });
    let sinks = sink_types(&fields, "Output");
    let made = fields.iter().map(|_| quote!(::larder_plugin::__private::Writer::new(heads)));
    let idents: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let indexes: Vec<_> = fields.iter().map(|field| &field.index).collect();
    let append = append(&indexes);
    Ok(quote! {
        #[automatically_derived]
        impl #before ::larder_plugin::__private::Outputs for #name #after #condition {
            const FIELDS: &'static [::larder_plugin::__private::FieldSpec] = &[#(#specs),*];
            type Writers<'larder> = (#(#writers,)*);
            type Sinks = #sinks;

            #[inline]
            fn writers<'larder>(heads: &mut ::larder_plugin::__private::Heads<'larder>) -> Self::Writers<'larder> {
                (#(#made,)*)
            }

            #[inline]
            fn write(self, row: usize, writers: &mut Self::Writers<'_>) {
                #(::larder_plugin::__private::Output::write(self.#idents, row, &mut writers.#indexes);)*
            }

            #[inline]
            fn write_nulls(row: usize, writers: &mut Self::Writers<'_>) {
                #(writers.#indexes.put_null(row);)*
            }

            #[inline]
            fn sinks(writers: Self::Writers<'_>) -> Self::Sinks {
                (#(writers.#indexes.into_sink(),)*)
            }

            #[inline]
            fn append(sinks: Self::Sinks, frame: &mut ::std::vec::Vec<u8>) {
                #append
            }
        }
    })
}

pub(crate) fn input_columns(item: &DeriveInput) -> Result<TokenStream> {
    let (fields, lifetime) = (fields(item)?, lifetime(item)?);
    let (name, (before, after)) = (&item.ident, generics(item, &lifetime));
    let specs = fields.iter().map(|Field { name, doc, of, .. }| {
        quote_spanned! {of.span()=>
            ::larder_plugin::__private::FieldSpec {
                name: #name,
                column_type: <#of as ::larder_plugin::__private::InputColumn<#lifetime>>::TYPE,
                nullable: true,
                doc: #doc,
            }
        }
    });
    let opened = fields.iter().map(|Field { ident, of, index, .. }| {
        quote_spanned! {of.span()=>
            #ident: <#of as ::larder_plugin::__private::InputColumn<#lifetime>>::open(frame, #index, Self::FIELDS)?
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #before ::larder_plugin::__private::InputColumns<#lifetime> for #name #after {
            const FIELDS: &'static [::larder_plugin::__private::FieldSpec] = &[#(#specs),*];

            #[allow(unused_variables, reason = "a struct may have no field")]
            fn open(
                frame: &mut ::larder_plugin::__private::Frame<#lifetime>,
            ) -> ::core::result::Result<Self, ::larder_plugin::Fault> {
                ::core::result::Result::Ok(Self { #(#opened,)* })
            }
        }
    })
}

pub(crate) fn output_columns(item: &DeriveInput) -> Result<TokenStream> {
    let (name, fields) = (&item.ident, fields(item)?);
    some(&fields, name)?;
    let (before, after, condition) = item.generics.split_for_impl();
    let specs = fields.iter().map(|field| output_spec(field, "OutputColumn"));
    let written = fields.iter().map(|Field { ident, name, of, .. }| {
        quote_spanned! {of.span()=>
            <#of as ::larder_plugin::__private::OutputColumn>::write(self.#ident, &mut heads, #name)?
        }
    });
    let sinks = sink_types(&fields, "OutputColumn");
    let indexes: Vec<_> = fields.iter().map(|field| &field.index).collect();
    let append = append(&indexes);
    Ok(quote! {
        #[automatically_derived]
        impl #before ::larder_plugin::__private::OutputColumns for #name #after #condition {
            const FIELDS: &'static [::larder_plugin::__private::FieldSpec] = &[#(#specs),*];

            fn write(
                self,
                rows: usize,
                frame: &mut ::std::vec::Vec<u8>,
            ) -> ::core::result::Result<(), ::larder_plugin::Fault> {
                let mut heads = ::larder_plugin::__private::Heads::new(frame, rows);
                let sinks: #sinks = (#(#written,)*);
                #append
                ::core::result::Result::Ok(())
            }
        }
    })
}

/// Returns the type of a tuple with the sink of each output. The types of outputs implement `of_trait`.
fn sink_types(fields: &[Field], of_trait: &str) -> TokenStream {
    let types = fields.iter().map(|Field { of, .. }| {
        let of_trait = Ident::new(of_trait, of.span());
        quote_spanned!(of.span()=> <#of as ::larder_plugin::__private::#of_trait>::Sink)
    });
    quote!((#(#types,)*))
}

/// Returns code that appends the tails of all columns to the frame. It reserves the exact capacity, because a vector with
/// spare capacity is copied when it is returned.
fn append(indexes: &[&Index]) -> TokenStream {
    quote! {
        use ::larder_plugin::__private::Sink as _;
        frame.reserve_exact(0 #(+ sinks.#indexes.tail_len())*);
        #(sinks.#indexes.append(frame);)*
    }
}

/// Returns the `FieldSpec` of an output whose type implements `of_trait`.
fn output_spec(Field { name, doc, of, .. }: &Field, of_trait: &str) -> TokenStream {
    let of_trait = Ident::new(of_trait, of.span());
    quote_spanned! {of.span()=>
        ::larder_plugin::__private::FieldSpec {
            name: #name,
            column_type: <#of as ::larder_plugin::__private::#of_trait>::TYPE,
            nullable: <#of as ::larder_plugin::__private::#of_trait>::NULLABLE,
            doc: #doc,
        }
    }
}

/// Returns the fields of a struct with named fields.
fn fields(item: &DeriveInput) -> Result<Vec<Field>> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new(item.ident.span(), "expected a struct with a field for each input or output"));
    };
    let named = match &data.fields {
        Fields::Named(fields) => &fields.named,
        Fields::Unit => return Ok(Vec::new()),
        Fields::Unnamed(_) => {
            return Err(Error::new(item.ident.span(), "each field needs a name, which is the name of the feature"));
        }
    };
    let mut fields = Vec::new();
    for field in named {
        let Some(ident) = field.ident.clone() else { continue };
        let name = ident.to_string().trim_start_matches("r#").to_owned();
        if !name.is_ascii() {
            return Err(Error::new(
                ident.span(),
                "a feature's name must be a letter or '_', followed by letters, digits and '_', all in ASCII",
            ));
        }
        let index = Index { index: u32::try_from(fields.len()).unwrap_or(u32::MAX), span: Span::call_site() };
        fields.push(Field { ident, name, doc: doc(&field.attrs), of: field.ty.clone(), index });
    }
    Ok(fields)
}

fn some(fields: &[Field], name: &Ident) -> Result<()> {
    if fields.is_empty() {
        return Err(Error::new(name.span(), "a plugin needs at least one output"));
    }
    Ok(())
}

/// Returns the lifetime parameter of the struct. If it has none, returns a generated one.
fn lifetime(item: &DeriveInput) -> Result<Lifetime> {
    if let Some(parameter) = item.generics.type_params().next() {
        return Err(Error::new(parameter.span(), "no type parameters: the type of each feature is fixed"));
    }
    let mut lifetimes = item.generics.lifetimes().map(|parameter| parameter.lifetime.clone());
    let (first, second) = (lifetimes.next(), lifetimes.next());
    if let Some(second) = second {
        return Err(Error::new(second.span(), "use one lifetime: all fields borrow from the same batch"));
    }
    Ok(first.unwrap_or_else(|| Lifetime::new("'larder", item.ident.span())))
}

/// Returns the generics that follow `impl`, and those that follow the struct's name.
fn generics(item: &DeriveInput, lifetime: &Lifetime) -> (TokenStream, TokenStream) {
    let after = if item.generics.lifetimes().next().is_some() { quote!(<#lifetime>) } else { quote!() };
    (quote!(<#lifetime>), after)
}

/// Returns the first paragraph of a doc comment, as a single line.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let mut words: Vec<String> = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        let Meta::NameValue(meta) = &attribute.meta else { continue };
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value else { continue };
        // A block comment is one attribute with many lines.
        for line in text.value().split('\n') {
            let line = line.trim().trim_start_matches("* ").trim();
            if line.is_empty() && !words.is_empty() {
                return words.join(" ");
            }
            if !line.is_empty() {
                words.push(line.to_owned());
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn error(made: Result<TokenStream>) -> String {
        made.unwrap_err().to_string()
    }

    #[test]
    fn unsupported_struct_error_names_the_reason() {
        assert!(
            error(inputs(&parse_quote!(
                enum Row {
                    A,
                }
            )))
            .contains("expected a struct")
        );
        assert!(
            error(inputs(&parse_quote!(
                struct Row(f64);
            )))
            .contains("needs a name")
        );
        assert!(
            error(inputs(&parse_quote!(
                struct Row<T> {
                    x: T,
                }
            )))
            .contains("no type parameters")
        );
        assert!(
            error(inputs(&parse_quote!(
                struct Row<'a, 'b> {
                    x: &'a str,
                    y: &'b str,
                }
            )))
            .contains("one lifetime")
        );
        assert!(
            error(inputs(&parse_quote!(
                struct Row {
                    größe: f64,
                }
            )))
            .contains("ASCII")
        );
        assert!(
            error(outputs(&parse_quote!(
                struct Out {}
            )))
            .contains("at least one output")
        );
    }

    #[test]
    fn doc_is_first_paragraph_in_one_line() {
        let item: DeriveInput = parse_quote! {
            /// Charges of the last
            ///   full month.
            ///
            /// Not those of the current one.
            struct Row;
        };
        assert_eq!(doc(&item.attrs), "Charges of the last full month.");
        let item: DeriveInput = parse_quote!(
            struct Row;
        );
        assert_eq!(doc(&item.attrs), "");
    }

    #[test]
    fn raw_identifier_loses_its_prefix() {
        let item: DeriveInput = parse_quote!(
            struct Row {
                r#type: f64,
            }
        );
        assert_eq!(fields(&item).unwrap()[0].name, "type");
    }
}
