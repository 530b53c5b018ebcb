//! `#[derive(Inputs)]` and `#[derive(Outputs)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Field, Fields, Ident, Lifetime, Lit, Meta, Result,
    spanned::Spanned,
    visit_mut::{VisitMut, visit_type_mut},
};

pub(crate) fn inputs(item: &DeriveInput) -> Result<TokenStream> {
    let (name, fields) = (&item.ident, fields(item)?);
    let given = lifetime(item)?;
    let generics = given.as_ref().map(|lifetime| quote!(<#lifetime>));
    // A struct that borrows nothing is read from columns of any lifetime.
    let lifetime = given.clone().unwrap_or_else(|| Lifetime::new("'larder", name.span()));
    let names: Vec<&Ident> = fields.iter().filter_map(|field| field.ident.as_ref()).collect();
    let texts: Vec<String> = names.iter().map(|name| plain(name)).collect();
    let docs: Vec<String> = fields.iter().map(|field| doc(&field.attrs)).collect();
    let types: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    let statics: Vec<_> = fields
        .iter()
        .map(|field| {
            let mut of = field.ty.clone();
            Relive("'static").visit_type_mut(&mut of);
            of
        })
        .collect();
    let places = 0..names.len();
    let readers: Vec<Ident> = names.iter().map(|name| format_ident!("read_{}", plain(name))).collect();
    let specs = statics.iter().zip(&fields).zip(&texts).zip(&docs).map(|(((of, field), text), doc)| {
        quote_spanned! {field.ty.span()=>
            ::larder_plugin::__private::FieldSpec {
                name: #text,
                data_type: <#of as ::larder_plugin::__private::Input<'static>>::TYPE,
                nullable: !<#of as ::larder_plugin::__private::Input<'static>>::REQUIRED,
                doc: #doc,
            }
        }
    });
    Ok(quote! {
        impl<#lifetime> ::larder_plugin::__private::Inputs<#lifetime> for #name #generics {
            type Readers = (#(<#types as ::larder_plugin::__private::Input<#lifetime>>::Reader,)*);

            const FIELDS: &'static [::larder_plugin::__private::FieldSpec] = &[#(#specs),*];

            fn open(
                columns: &#lifetime [::larder_plugin::__private::types::Column],
            ) -> ::core::result::Result<Self::Readers, ::larder_plugin::Fault> {
                Ok((#(::larder_plugin::__private::open::<#types>(columns, #places, #texts)?,)*))
            }

            #[inline]
            fn read(readers: &Self::Readers, row: usize) -> ::core::option::Option<Self> {
                let (#(#readers,)*) = readers;
                ::core::option::Option::Some(Self {
                    #(#names: <#types as ::larder_plugin::__private::Input<#lifetime>>::get(#readers, row)?,)*
                })
            }
        }
    })
}

pub(crate) fn outputs(item: &DeriveInput) -> Result<TokenStream> {
    let (name, fields) = (&item.ident, fields(item)?);
    if fields.is_empty() {
        return Err(Error::new(name.span(), "a plugin computes something: there has to be an output"));
    }
    let (before, after, condition) = item.generics.split_for_impl();
    let names: Vec<&Ident> = fields.iter().filter_map(|field| field.ident.as_ref()).collect();
    let places = 0..names.len();
    let specs = fields.iter().zip(&names).map(|(field, name)| {
        let (text, doc) = (plain(name), doc(&field.attrs));
        let mut of = field.ty.clone();
        Relive("'static").visit_type_mut(&mut of);
        quote_spanned! {field.ty.span()=>
            ::larder_plugin::__private::FieldSpec {
                name: #text,
                data_type: <#of as ::larder_plugin::__private::Output>::TYPE,
                nullable: <#of as ::larder_plugin::__private::Output>::NULLABLE,
                doc: #doc,
            }
        }
    });
    Ok(quote! {
        impl #before ::larder_plugin::__private::Outputs for #name #after #condition {
            const FIELDS: &'static [::larder_plugin::__private::FieldSpec] = &[#(#specs),*];

            #[inline]
            fn push(self, columns: &mut [::larder_plugin::__private::Builder]) {
                #(::larder_plugin::__private::Output::push(self.#names, &mut columns[#places]);)*
            }
        }
    })
}

/// The fields of a struct that has names for them.
fn fields(item: &DeriveInput) -> Result<Vec<Field>> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new(item.ident.span(), "inputs and outputs are a struct"));
    };
    match &data.fields {
        Fields::Named(fields) => Ok(fields.named.iter().cloned().collect()),
        Fields::Unit => Ok(Vec::new()),
        Fields::Unnamed(_) => Err(Error::new(item.ident.span(), "each field needs a name: it is the feature's")),
    }
}

fn lifetime(item: &DeriveInput) -> Result<Option<Lifetime>> {
    if let Some(parameter) = item.generics.type_params().next() {
        return Err(Error::new(parameter.span(), "the types of features are known: no type parameter"));
    }
    let mut lifetimes = item.generics.lifetimes().map(|parameter| parameter.lifetime.clone());
    let (first, second) = (lifetimes.next(), lifetimes.next());
    match second {
        Some(second) => {
            Err(Error::new(second.span(), "all that is borrowed is of the same batch: one lifetime is enough"))
        }
        None => Ok(first),
    }
}

/// Puts one lifetime in the place of all others.
pub(crate) struct Relive(pub(crate) &'static str);

impl VisitMut for Relive {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        *lifetime = Lifetime::new(self.0, lifetime.span());
    }

    fn visit_type_mut(&mut self, of: &mut syn::Type) {
        if let syn::Type::Reference(reference) = of {
            reference.lifetime = Some(Lifetime::new(self.0, reference.span()));
        }
        visit_type_mut(self, of);
    }
}

/// A name without the mark of a raw identifier.
fn plain(name: &Ident) -> String {
    name.to_string().trim_start_matches("r#").to_owned()
}

/// The first paragraph of a doc comment, in one line.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let mut words: Vec<String> = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        let Meta::NameValue(meta) = &attribute.meta else { continue };
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value else { continue };
        let line = text.value().trim().to_owned();
        if line.is_empty() && !words.is_empty() {
            break;
        }
        if !line.is_empty() {
            words.push(line);
        }
    }
    words.join(" ")
}
